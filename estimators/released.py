r"""Estimators as others have released them, wrong in a known way: for experiments that show what the mistake does.

No run but one that asks for them by ``estimator=released/NAME`` meets them, and no certificate covers them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from . import sampling
from .arsm import ARSPlus, Race
from .base import graft
from .carms import Stratified
from .gumbel_rao import GumbelRao, behind, mean_jacobian
from .objectives import Objective
from .rebar import Relax
from .reinmax import ReinMax, ReinMaxCV, log_midpoint
from .straight_through import through_softmax
from .sum_and_sample import SumAndSample


class RelaxAsReleased(Relax):
    r""":class:`hardmax.estimators.Relax` with the conditional noise of two published repositories; biased.

    Given the draw b, the noise behind every other category is its own waiting time plus the waiting time of b. Here
    each uses its own waiting time twice (``v_i`` where ``v_b`` belongs). Both relaxations are evaluated, since the
    second one no longer coincides with the first.

    References:
        | toy/toy_relax_single.py in https://github.com/ARM-gradient/ARSM, which Figure 1 of Yin, Yue and Zhou (2019)
          compares with
        | vae/vae.py in https://github.com/wouterkool/estimating-gradients-without-replacement

    Arguments:
        temperature, scale, width: See :class:`hardmax.estimators.Relax`.
    """

    unbiased = False

    def gradient(
        self,
        cost: Tensor,
        objective: Objective,
        log_p: Tensor,
        z: Tensor,
        hard: Tensor,
        dtype: torch.dtype,
        train: bool,
    ) -> Tensor:
        leaf = log_p.detach().requires_grad_()
        own = leaf.log_softmax(-1)
        noise, clock = z - log_p, (-sampling.gumbel(log_p, 1)).exp()
        pair, temperature = (own + noise, given(hard, own, clock, shared=False)), self.log_temperature.exp()
        control, given_draw = (self.control((x / temperature).softmax(-1), objective, dtype) for x in pair)
        (difference,) = torch.autograd.grad((control - given_draw).sum(), leaf, create_graph=train)
        return (cost - given_draw)[..., None, None] * (hard - log_p.exp()) + difference


def given(hard: Tensor, log_p: Tensor, clock: Tensor, shared: bool) -> Tensor:
    r"""log p + Gumbel noise given the place of its maximum, of the shape of ``hard``.

    Arguments:
        hard: One-hot places of the maxima, ``[1, *batch, K, C]``.
        log_p: Logarithms of probabilities that sum to 1, ``[*batch, K, C]``.
        clock: Independent Exp(1) waiting times, of the shape of ``hard``.
        shared: Whether all other categories add the waiting time of the maximum, as they must, or each its own.
    """
    winner = (clock * hard).sum(-1, keepdim=True)
    others = -(clock / log_p.exp() + (winner if shared else clock)).log()
    return torch.where(hard.bool(), -winner.log(), others)


class GumbelRaoAsReleased(GumbelRao):
    r""":class:`hardmax.estimators.GumbelRao` with 1e-8 added to waiting times, in units that the logits choose.

    The 1e-8, which keeps a logarithm from infinity, is added while the waiting times are those of unnormalised
    probabilities, with a sum Z of exp(logits): among normalised ones it is Z 1e-8. So the gradient depends on a
    constant that is added to all logits, which changes no probability: where log Z is some 20, the categories that
    lost are far behind, relaxed samples are nearly hard, and most of the gradient is gone.

    References:
        | conditional_gumbel in Gradient_estimators.py of
          https://github.com/James-Hooper123/Generalized-and-Optimal-Straight-Through-Estimators

    Arguments:
        noises, temperature, rate, floor, every, annealing, over: See :class:`hardmax.estimators.GumbelRao`.
    """

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        clock, tiny, temperature = -sampling.uniform(logits, self.noises).log(), 1e-8, self.temperature()
        winner = (clock * hard).sum(-1, keepdim=True) + tiny
        log_z = logits.logsumexp(-1, keepdim=True)
        others = -(clock / logits.exp() + winner / log_z.exp() + tiny).log()
        y = sampling.softmax(torch.where(hard.bool(), log_z - winner.log(), others) / temperature)
        return lambda g: (through_softmax(y, g) / temperature).mean(0, keepdim=True)


class ReinMaxCVAsReleased(ReinMaxCV):
    r""":class:`hardmax.estimators.ReinMaxCV` with the authors' second Jacobian; mostly a little less variance.

    It belongs to ``softmax(theta + y)``, where theta are the logits halfway to the draw and y is the relaxed sample
    whose largest entry the draw is: y stands where its Gumbel noise belongs, and the temperature only divides the
    Jacobian.
    As y leans towards the draw, the difference of the two Jacobians has a mean other than 0, which takes part of
    ReinMax away: that, and no control of noise, is what lowers the variance.

    References:
        | reinmax_jacobians.py in https://github.com/danielwang0452/ReinMax_ASC, at commit fe1ee7b

    Arguments:
        temperature, eta, noises, relaxation_temperature: See :class:`hardmax.estimators.ReinMaxCV`.
    """

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        reinmax, tau = ReinMax.pullback(self, logits, hard), self.relaxation_temperature
        log_p = logits.log_softmax(-1)
        theta = log_midpoint(logits, hard)
        given_draw = mean_jacobian(theta, hard, self.noises, tau)
        y = sampling.softmax(behind(log_p, hard, 1).movedim(1, -1) / tau)
        released = sampling.softmax(theta + y)
        return lambda g: reinmax(g) + self.eta * (given_draw(g) - through_softmax(released, g) / tau)


class ARSPlusAsReleased(ARSPlus):
    r""":class:`hardmax.estimators.ARSPlus` with the mean that the authors' code puts for the noise; biased.

    With a second category l, the sum of pi_j and pi_l and all other noise fixed, pi_j is uniform. Whether category m
    wins after its swap with j holds for pi_j below a threshold, for every m, so that pi_j lies in an interval, whose
    middle is taken. But a pseudo-action also says *which* other category wins, which narrows the interval: the costs
    that the middle is multiplied by know more than the middle does.

    References:
        | get_arsplus_swapped_vector in disarm/categorical/networks.py of
          https://github.com/google-research/google-research
    """

    unbiased = False

    def reference_noise(self, race: Race, j: Tensor) -> Tensor:
        phi, log_pi = race.logits, race.pi().log()
        *batch, K, C = phi.shape
        if C == 1:
            return super().reference_noise(race, j)
        other = (j + 1 + sampling.categorical(phi.new_zeros(*batch, 1, C - 1), 1)[0]) % C  # [*batch, 1]
        j, other = (index.unsqueeze(-1).expand(*batch, K, 1) for index in (j, other))
        m = torch.arange(C, device=phi.device).expand_as(phi)
        rival = torch.where(m == other, j, other)  # has pi_l where m has pi_j
        log_sum = torch.logaddexp(log_pi.gather(-1, j), log_pi.gather(-1, other))
        reached = phi + log_sum - torch.logaddexp(phi, phi.gather(-1, rival))  # where m and its rival tie
        # Times of the others after the swap of m and j, [*batch, K, m, C]: the place of j has the noise of m.
        after = torch.where(m.unsqueeze(-2) == j.unsqueeze(-1), log_pi.unsqueeze(-1), log_pi.unsqueeze(-2))
        times = after - phi.unsqueeze(-2)
        contending = (m.unsqueeze(-2) != m.unsqueeze(-1)) & (m.unsqueeze(-2) != rival.unsqueeze(-1))
        first = times.masked_fill(~contending, torch.inf).amin(-1)
        threshold = torch.minimum(reached, phi + first)
        wins = log_pi.gather(-1, j) < threshold
        upper = threshold.masked_fill(~wins, torch.inf).amin(-1, keepdim=True)
        lower = threshold.masked_fill(wins, -torch.inf).amax(-1, keepdim=True)
        return (torch.minimum(upper, log_sum).exp() + lower.exp()) / 2


class CoupledLeaveOneOut(Stratified):
    r""":class:`hardmax.estimators.Stratified` without weights: leave-one-out as if the draws were independent; biased.

    The other draws are where this one is not, so that their costs tell which it is: their mean is no baseline. It is
    what comes of quasi-random numbers in an estimator that is written for random ones: a gradient that is too long
    along costs that follow the order of the categories, and more variance than with the weights.

    Arguments:
        samples: See :class:`hardmax.estimators.Stratified`.
    """

    unbiased = False

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.one_hot(self.draws(logits.detach().double().log_softmax(-1)), logits)
        cost = objective(z)
        advantage = (cost - cost.mean(0)).detach()[..., None, None]
        return graft(cost.mean(0), logits, (advantage * (z - logits.softmax(-1))).sum(0) / (self.samples - 1))


class SumAndSampleAsReleased(SumAndSample):
    r""":class:`hardmax.estimators.SumAndSample` with a baseline of its own for every term; more noise than it needs.

    Each summed configuration, like the drawn one, subtracts the cost of another draw. What one baseline adds to all
    terms would cancel in the sum; what S of them add does not, so that there is noise even where everything is summed.
    Unbiased, as no baseline knows its term.

    References:
        | get_raoblackwell_ps_loss with reinforce_w_double_sample_baseline in rb_utils of
          https://github.com/Runjing-Liu120/RaoBlackwellizedSGD

    Arguments:
        samples: See :class:`hardmax.estimators.SumAndSample`; twice as many are evaluated.
    """

    def __init__(self, samples: int = 4):
        super().__init__(samples, baseline="sample")
        self.evaluations = "2 * S"

    @torch.no_grad()
    def subtracted(self, cost: Tensor, log_prob: Tensor, logits: Tensor, objective: Objective) -> Tensor:
        return objective(sampling.draw(logits, self.samples))
