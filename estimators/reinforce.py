import torch
from torch import Tensor

from hardmax.checks import at_least, one_of

from . import sampling
from .base import Estimator, RunningMean, graft
from .objectives import WITHOUT_K, Objective

BASELINES = ("none", "running_mean", "leave_one_out", "batch", "greedy", "sample", "group")
ADDED = 1e-4  # to standard deviations before they divide, as public code does


class Reinforce(Estimator):
    r"""Score-function estimator: mean over S draws of ``f(z) - b`` times the gradient of log q(z).

    Needs only values of the objective. Without a baseline its variance grows with the square of the
    objective: use ``leave_one_out`` wherever two evaluations are affordable.

    References:
        | Simple statistical gradient-following algorithms for connectionist reinforcement learning (Williams, 1992)
        | https://doi.org/10.1007/BF00992696
        | Buy 4 REINFORCE samples, get a baseline for free! (Kool et al., 2019)
        | https://openreview.net/forum?id=r1lgTGL5DE
        | Self-critical sequence training for image captioning (Rennie et al., 2017), the greedy baseline
        | https://arxiv.org/abs/1612.00563
        | DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models (Shao et al., 2024), the
          group's mean and standard deviation
        | https://arxiv.org/abs/2402.03300
        | Understanding R1-Zero-Like Training: A Critical Perspective (Liu et al., 2025), without the latter
        | https://arxiv.org/abs/2503.20783
        | VarGrad: A Low-Variance Gradient Estimator for Variational Inference (Richter et al., 2020), leave-one-out
        | https://arxiv.org/abs/2010.10436

    Arguments:
        samples: Number S of draws, at least 1; at least 2 with ``leave_one_out`` and ``group``.
        baseline: What is subtracted from the cost. ``none``; ``running_mean`` (of the costs of earlier steps);
            ``leave_one_out`` (mean of the other draws of the same example); ``batch`` (mean cost of the other
            examples along the last batch dimension); ``greedy`` (cost of the most probable categories, one
            more evaluation); ``sample`` (cost of one more draw, another evaluation); ``group`` (mean of the S draws,
            its own one included: the gradient is (S - 1) / S of what it should be).
        decay: Of the running mean, per optimiser step, from 0 up to but not including 1.
        normalise: What the difference is divided by. ``none``; ``group``, the standard deviation of the S costs of the
            example; ``batch``, that of the costs of all examples along the last batch dimension. Either adds 1e-4, and
            neither is unbiased: examples of small costs count as much as those of large ones, and rare costs that
            are far from all others lose their weight.

    Raises:
        ValueError: For one sample where two are needed; at the call, for ``batch`` without other examples.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations, learns = "S", "a running mean of the cost, with baseline=running_mean"
    also_known_as = (
        "score function: baseline=none",
        "log-derivative trick: baseline=none",
        "RLOO: samples=4 baseline=leave_one_out",
        "LOORF: samples=4 baseline=leave_one_out",
        "VarGrad: samples=4 baseline=leave_one_out",  # with log_q: costs are then log-ratios
        "SCST: baseline=greedy",
        "GRPO: samples=4 baseline=group normalise=group",  # its first step, before q is another than what draws
        "Dr. GRPO: samples=4 baseline=group",
    )
    # the oldest, and what Kool et al. (2019) advise
    worth_trying = ({"samples": 1, "baseline": "running_mean"}, {"samples": 4, "baseline": "leave_one_out"})

    def __init__(self, samples: int = 1, baseline: str = "running_mean", decay: float = 0.99, normalise: str = "none"):
        super().__init__()
        self.samples = at_least(1, samples=samples)
        self.baseline = one_of(BASELINES, baseline=baseline)
        self.learns = type(self).learns if baseline == "running_mean" else ""
        self.normalise = one_of(("none", "group", "batch"), normalise=normalise)
        of_group = [f"baseline={baseline}"] * (baseline in ("leave_one_out", "group"))
        of_group += [f"normalise={normalise}"] * (normalise == "group")
        if of_group and samples < 2:
            raise ValueError(f"samples must be at least 2 with {of_group[0]}, got {samples}")
        self.running = RunningMean(decay)
        self.evaluations = "S + 1" if baseline in ("greedy", "sample") else "S"
        self.unbiased = baseline != "group" and normalise == "none"

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        for option, value in (("baseline", self.baseline), ("normalise", self.normalise)):
            if value == "batch" and (logits.ndim < 3 or logits.shape[-3] < 2):
                hint = f"; {WITHOUT_K}" if logits.ndim == 2 else ""
                shape = f"{list(logits.shape)}{hint}"
                raise ValueError(f"{option}=batch needs at least 2 examples in a batch, got logits {shape}")
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        cost = objective(z)  # [S, *batch]
        advantage = cost.detach() - self.subtracted(cost.detach(), logits, objective)
        if self.normalise != "none":
            costs = (0,) if self.normalise == "group" else (0, -1)
            advantage = advantage / (cost.detach().double().std(costs, keepdim=True) + ADDED)
        advantage = advantage[..., None, None]
        gradient = (advantage * z).mean(0) - advantage.mean(0) * sampling.softmax(logits)
        return graft(cost.mean(0), logits, gradient)

    @torch.no_grad()
    def subtracted(self, cost: Tensor, logits: Tensor, objective: Objective) -> Tensor:
        r"""The baseline for costs ``[S, *batch]``, broadcastable to them; but for ``group`` independent of its draw."""
        match self.baseline:
            case "group":
                return cost.mean(0)
            case "sample":
                return objective(sampling.draw(logits, 1))
            case "leave_one_out":
                return (cost.sum(0) - cost) / (self.samples - 1)
            case "batch":
                per_example = cost.mean(0)
                return (per_example.sum(-1, keepdim=True) - per_example) / (per_example.shape[-1] - 1)
            case "greedy":
                return objective(sampling.one_hot(logits.argmax(-1), logits).unsqueeze(0))
            case "running_mean":
                if self.training:
                    self.running.note(cost.mean())
                return self.running().to(cost.dtype)
        return torch.zeros_like(cost)  # none

    def advance(self) -> None:
        self.running.advance()
