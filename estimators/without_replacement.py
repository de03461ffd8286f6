import torch
from torch import Tensor

from hardmax.checks import at_least, one_of

from . import sampling
from .base import Estimator, graft
from .objectives import Objective
from .unordered_set import beam, log1mexp, log_prob_of_members

NEXT_TO_NONE = -30.0  # 1 - exp(-x) is x for logarithms of x below
OF_THE_SET = ("none", "set", "normalised")


class ReinforceWithoutReplacement(Estimator):
    r"""Score function over S different joint configurations, each over the probability that it is among them.

    The configurations are those whose log-probabilities are the largest once Gumbel noise is added. With the next
    largest as threshold, configuration s is among them with probability :math:`q_s`, given the threshold, and counts
    :math:`p_s / q_s`. Value and gradient are exact with as many samples as there are configurations.

    Unbiased without baseline and with ``set``, which subtracts what the set says of the mean, corrected for the draw's
    own part; that lowers the variance or raises it, since the weights' sum is random. ``normalised`` divides by this
    sum: mostly of far less variance, and biased, the less the more samples there are. :class:`UnorderedSet` averages
    over all orders in which the set could have come, with less variance for its up to 8 samples. REINFORCE with
    ``leave_one_out`` is better wherever configurations are so many that draws hardly ever repeat.

    References:
        | Buy 4 REINFORCE samples, get a baseline for free! (Kool et al., 2019), Equations 9, 10 and 11
        | https://openreview.net/forum?id=r1lgTGL5DE
        | Stochastic Beams and Where to Find Them (Kool et al., 2019), the draws and their weights
        | https://arxiv.org/abs/1903.06059

    Arguments:
        samples: Number S of configurations, at least 1; at least 2 with a baseline. Those that exceed the number of
            configurations have no weight.
        baseline: ``none``, ``set`` or ``normalised``.

    Raises:
        ValueError: For one sample with a baseline.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "S"
    worth_trying = ({"baseline": "set"}, {"baseline": "normalised"})  # unbiased, and what Kool et al. advise

    def __init__(self, samples: int = 4, baseline: str = "set"):
        super().__init__()
        self.samples = at_least(1, samples=samples)
        self.baseline = one_of(OF_THE_SET, baseline=baseline)
        if baseline != "none" and samples < 2:
            raise ValueError(f"samples must be at least 2 with baseline={baseline}, got {samples}")
        self.unbiased = baseline != "normalised"

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        log_p = logits.detach().double().log_softmax(-1)
        noise = sampling.gumbel(log_p, self.samples + 1).movedim(0, -2)
        largest = sampling.gumbel(log_p[..., 0, 0], 1)[0]  # of all perturbed log-probabilities, [*batch]
        z, low = beam(log_p, self.samples + 1, noise, -largest)
        z, threshold = z[:-1], low[..., -1]
        log_prob = log_prob_of_members(log_p, z)  # [S, *batch]
        p = log_prob.exp()
        log_rate = log_prob + threshold
        log_q = torch.where(log_rate < NEXT_TO_NONE, log_rate, log1mexp(-log_rate.exp()))
        weight = (log_prob - log_q).exp()
        weight = weight.masked_fill(log_prob == -torch.inf, 0.0)
        cost = objective(sampling.one_hot(z, logits))  # [S, *batch]
        f = cost.detach().double()
        mean, total = (weight * f).sum(0), weight.sum(0)
        match self.baseline:
            case "none":
                score = weight * f
            case "set":
                score = weight * (f * (1 - p + weight) - mean)
            case _:
                score = weight / (total - weight + p) * (f - mean / total)
        score = score.movedim(0, -1).unsqueeze(-2)  # [*batch, 1, S]
        gradient = -score.sum(-1, keepdim=True) * log_p.exp()
        gradient.scatter_add_(-1, z.movedim(0, -1), score.expand(*log_p.shape[:-1], -1))
        return graft((weight.to(cost.dtype) * cost).sum(0), logits, gradient)
