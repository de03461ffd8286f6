import torch
from torch import Tensor

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, copies_in_cache, graft
from .objectives import Objective


class Race:
    r"""K categorical draws as races of C exponential clocks, and what they become when the noise is permuted.

    With :math:`\pi \sim \mathrm{Dirichlet}(1_C)`, the category :math:`\arg\min_c (\ln \pi_c - \phi_c)` is a draw
    from :math:`\mathrm{softmax}(\phi)`. The noise is kept as the logarithms of Exp(1) draws, which underflow
    for no C.

    Arguments:
        logits: ``[*batch, K, C]``.
    """

    def __init__(self, logits: Tensor):
        self.logits = logits.detach()
        self.log_noise = -sampling.gumbel(self.logits, 1)[0]  # [*batch, K, C]
        # Only the two swapped entries of a race change, so the best of the others is among its first three.
        nearest = min(3, logits.shape[-1])
        first, self.order = (self.log_noise - self.logits).topk(nearest, largest=False)
        self.first = torch.nn.functional.pad(first, (0, 3 - nearest), value=torch.inf)
        self.order = torch.nn.functional.pad(self.order, (0, 3 - nearest))

    def winner(self) -> Tensor:
        r"""The true action, one-hot, ``[1, *batch, K, C]``."""
        return sampling.one_hot(self.order[..., 0], self.logits).unsqueeze(0)

    def pi(self) -> Tensor:
        r"""The Dirichlet noise, ``[*batch, K, C]``."""
        noise = self.log_noise.exp()
        return noise / noise.sum(-1, keepdim=True)

    def swapped(self, m: Tensor, j: Tensor) -> Tensor:
        r"""Pseudo-actions: who wins when entries m and j of the noise of *every* variable change places.

        Arguments:
            m, j: Category indices, ``[*batch, P]`` or broadcastable to it.

        Returns:
            One-hot pseudo-actions, ``[P, *batch, K, C]``.
        """
        shape = (*self.logits.shape[:-1], m.shape[-1])
        m, j = m.unsqueeze(-2).expand(shape), j.unsqueeze(-2).expand(shape)  # [*batch, K, P]
        at_m = self.log_noise.gather(-1, j) - self.logits.gather(-1, m)
        at_j = self.log_noise.gather(-1, m) - self.logits.gather(-1, j)
        taken = [(order == m) | (order == j) for order in self.order[..., :2].split(1, -1)]
        others = taken[0] * (1 + taken[1].long())  # place of the best of the others
        best, winner = self.first.gather(-1, others), self.order.gather(-1, others)
        winner = torch.where(at_m < best, m, winner)
        winner = torch.where(at_j < torch.minimum(at_m, best), j, winner)
        return sampling.one_hot(winner.movedim(-1, 0), self.logits)

    def costs_of_swaps(self, objective: Objective, m: Tensor, j: Tensor) -> Tensor:
        r"""Costs of the pseudo-actions of swaps ``m``, ``j`` ``[*batch, P]``, without gradients: ``[*batch, P]``.

        Evaluated in chunks of swaps that fit the processor's cache, which also bounds memory.
        """
        swaps = 1 + copies_in_cache(self.logits) * 3 // 2  # there is no backward pass to keep anything for
        pairs = zip(m.split(8 * swaps, -1), j.split(8 * swaps, -1), strict=True)
        with torch.no_grad():
            costs = [objective(z) for pair in pairs for z in self.swapped(*pair).split(swaps)]
        return torch.cat(costs).movedim(0, -1)


class AR(Estimator):
    r"""Augment-REINFORCE: the score of the Dirichlet noise behind a draw, ``f(z) (1 - C pi)``.

    One evaluation. It has more variance than REINFORCE and is here as the first step towards :class:`ARSM`.

    References:
        | ARSM: Augment-REINFORCE-swap-merge estimator for gradient backpropagation through categorical
          variables (Yin, Yue and Zhou, 2019)
        | https://arxiv.org/abs/1905.01413
    """

    target, unbiased, differentiates_objective = "expectation", True, False

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        race = Race(logits)
        cost = objective(race.winner())[0]
        return graft(cost, logits, self.gradient(race, cost.detach(), objective))

    def gradient(self, race: Race, cost: Tensor, objective: Objective) -> Tensor:
        r"""Gradient estimate ``[*batch, K, C]`` from a race, and the cost ``[*batch]`` of its true action."""
        return cost[..., None, None] * (1 - race.logits.shape[-1] * race.pi())


class ARS(AR):
    r"""Augment-REINFORCE-swap: compares the C pseudo-actions that come from swapping each category with a reference.

    C evaluations, C - 1 of them without gradients. The reference category is drawn uniformly for every
    example. Costs that agree cancel: where no swap changes the draw the gradient is exactly 0.

    References:
        | ARSM: Augment-REINFORCE-swap-merge estimator for gradient backpropagation through categorical
          variables (Yin, Yue and Zhou, 2019)
        | https://arxiv.org/abs/1905.01413
    """

    evaluations = "C"

    def gradient(self, race: Race, cost: Tensor, objective: Objective) -> Tensor:
        C = race.logits.shape[-1]
        batch = race.logits.shape[:-2]
        j = sampling.categorical(race.logits.new_zeros(*batch, 1, C), 1)[0]  # [*batch, 1]
        m = (j + torch.arange(1, C, device=j.device)) % C  # [*batch, C - 1]
        costs = cost.unsqueeze(-1).repeat_interleave(C, -1)
        if C > 1:
            costs.scatter_(-1, m, race.costs_of_swaps(objective, m, j.expand_as(m)))
        advantage = (costs - costs.mean(-1, keepdim=True)).unsqueeze(-2)  # [*batch, 1, C]
        return advantage * (1 - C * self.reference_noise(race, j))

    def reference_noise(self, race: Race, j: Tensor) -> Tensor:
        r"""Noise ``[*batch, K, 1]`` of the reference category ``j`` ``[*batch, 1]`` of every variable."""
        return race.pi().gather(-1, j.unsqueeze(-2).expand(*race.logits.shape[:-1], 1))


class ARSM(AR):
    r"""Augment-REINFORCE-swap-merge: :class:`ARS` averaged over every reference category.

    C (C - 1) / 2 + 1 evaluations, one of them with gradients, however many variables there are. No
    baseline and no temperature to tune. Do not use it for one variable, which :class:`Exact` sums over in C
    evaluations, nor where K (C - 1) + 1 are fewer, which :class:`LocalExpectation` takes with less noise. Its cost
    grows with the square of C: from some thirty categories on, REINFORCE with as many leave-one-out samples is worth
    a comparison.

    References:
        | ARSM: Augment-REINFORCE-swap-merge estimator for gradient backpropagation through categorical
          variables (Yin, Yue and Zhou, 2019)
        | https://arxiv.org/abs/1905.01413

    Arguments:
        limit: Largest number of categories, at least 1.

    Raises:
        ValueError: At the call, if the logits have more categories than ``limit``.
    """

    evaluations = "C * (C - 1) // 2 + 1"
    also_known_as = ("ARM",)  # of binary variables

    def __init__(self, limit: int = 256):
        super().__init__()
        self.limit = at_least(1, limit=limit)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        if (C := logits.shape[-1]) > self.limit:
            raise ValueError(
                f"limit is {self.limit} categories, but the logits have {C}, for which {type(self).__name__} takes "
                f"{C * (C - 1) // 2 + 1:,} evaluations: raise limit, or take REINFORCE with leave-one-out samples"
            )
        return super().estimate(logits, objective, context)

    def gradient(self, race: Race, cost: Tensor, objective: Objective) -> Tensor:
        C = race.logits.shape[-1]
        m, j = torch.triu_indices(C, C, 1, device=cost.device)
        batch = cost.shape
        costs = cost[..., None, None].expand(*batch, C, C).clone()
        if C > 1:
            swapped = race.costs_of_swaps(objective, m, j)
            costs[..., m, j] = swapped
            costs[..., j, m] = swapped
        advantage = costs - costs.mean(-2, keepdim=True)  # [*batch, C, C]: of category c, reference j
        return (1 / C - race.pi()).to(costs.dtype) @ advantage.mT


class Watched:
    r"""An objective that counts how many of its pseudo-actions, by category, change each variable.

    Arguments:
        objective: ``[P, *batch, K, C] -> [P, *batch]``.
        true: The true action, one-hot, ``[1, *batch, K, C]``.
        categories: Whose swaps the pseudo-actions are, in the order of evaluation, each ``[P]``.
    """

    def __init__(self, objective: Objective, true: Tensor, *categories: Tensor):
        self.objective, self.true, self.categories, self.seen = objective, true, categories, 0
        self.by_category = true.new_zeros(true.shape[-1], *true.shape[1:-1], dtype=torch.int32)

    def __call__(self, z: Tensor) -> Tensor:
        changed = (z != self.true).any(-1).int()  # [P, *batch, K]
        for category in self.categories:
            self.by_category.index_add_(0, category[self.seen : self.seen + len(z)], changed)
        self.seen += len(z)
        return self.objective(z)

    def changes(self) -> Tensor:
        r"""The counts, ``[*batch, K, C]``."""
        return self.by_category.movedim(0, -1).contiguous()


class ARSPlus(ARS):
    r"""ARS without the noise of settled variables, those that no swap with the reference changes.

    What such a variable adds has mean 0 whatever its noise is: no swap changes its category, and every swap leaves the
    law of the other variables' draws as it is, so that on average the costs do not differ. Evaluations are those of
    :class:`ARS`, the variance is lower with more than one variable, and the same with one.

    The authors' code also puts a mean in the place of the noise of the other variables. It is left out here: that
    mean is not the one given the pseudo-actions, and biases the gradient (``ARSPlusAsReleased`` in
    :mod:`hardmax.estimators.released` has it; docs/certification.md says by how much).

    References:
        | Coupled Gradient Estimators for Discrete Latent Variables (Dong, Mnih and Tucker, 2021)
        | https://arxiv.org/abs/2106.08056
    """

    def gradient(self, race: Race, cost: Tensor, objective: Objective) -> Tensor:
        any_swap = race.order.new_zeros(race.logits.shape[-1] - 1)
        watched = Watched(objective, race.winner(), any_swap)
        gradient = super().gradient(race, cost, watched)
        return torch.where(watched.changes()[..., :1] > 0, gradient, 0.0)


class ARSMPlus(ARSM):
    r"""ARSM without the noise of settled variables: see :class:`ARSPlus`, which this averages over references.

    Evaluations and the argument are those of :class:`ARSM`.

    References:
        | Coupled Gradient Estimators for Discrete Latent Variables (Dong, Mnih and Tucker, 2021)
        | https://arxiv.org/abs/2106.08056
    """

    def gradient(self, race: Race, cost: Tensor, objective: Objective) -> Tensor:
        C = race.logits.shape[-1]
        swaps = torch.triu_indices(C, C, 1, device=cost.device)
        watched, pi = Watched(objective, race.winner(), *swaps), race.pi

        def centred_where_settled() -> Tensor:
            return torch.where(watched.changes() > 0, pi(), 1 / C)

        race.pi = centred_where_settled  # type: ignore[method-assign]  # read once all swaps have been evaluated
        return super().gradient(race, cost, watched)
