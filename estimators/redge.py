import itertools

import torch
from torch import Tensor

from hardmax.checks import at_least, fraction, positive

from . import sampling
from .base import straight_through
from .pathwise import Pathwise
from .reinmax import ZGR
from .straight_through import pulled_back

ALMOST_NONE = 1e-4  # of z is left at the last time
LEAST_VARIANCE = 0.1  # of the noise, where a category is nearly sure or nearly impossible


class ReDGE(Pathwise):
    r"""Straight-through whose surrogate is a denoising diffusion from Gaussian noise to the simplex.

    One-hot z that are noised to x = ``alpha z + sigma noise`` have a denoiser in closed form: the mean of z given x is
    ``softmax(logits + alpha x / sigma ** 2)``. From noise at the last time on, denoising and a deterministic step to
    the time before take turns. The draw is from the last mean, whose derivative through all steps is the surrogate's.
    As the noise grows and ``alpha`` vanishes this becomes :class:`StochasticStraightThrough`.

    The draws have the softmax's probabilities only with many steps or much noise: probabilities of 0.67, 0.24 and 0.09
    become 0.675, 0.236 and 0.089 by default, and 0.52, 0.31 and 0.18 with two steps. The gradient is biased even for a
    linear objective. Where either matters prefer :class:`ReinMax`. A sampled KL is about the softmax's log q.

    References:
        | Categorical Reparameterization with Denoising Diffusion models (Gourevitch et al., 2026)
        | https://arxiv.org/abs/2601.00781

    Arguments:
        steps: Number of times, that of z itself included, at least 2; at all others the denoiser is evaluated.
        t_1: Strength ``sigma`` of the noise at the time next to z, above 0 and below 1; ``alpha`` is 1 - sigma.
    """

    target = "draws"
    worth_trying = ({"t_1": 0.3}, {"t_1": 0.9})  # the ends of what the authors' package recommends

    def __init__(self, steps: int = 5, t_1: float = 0.5):
        super().__init__()
        self.steps, self.t_1 = at_least(2, steps=steps), fraction(t_1=positive(t_1=t_1))

    def draw(self, logits: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mean = (wide + self.evidence(self.last_point(wide), wide, 1 - self.t_1)).softmax(-1)
        return straight_through(sampling.draw(mean.detach().log(), 1), mean).to(logits.dtype)

    def last_point(self, logits: Tensor) -> Tensor:
        r"""The noisy point at the time next to z, ``[*batch, K, C]``."""
        rise = (1 - self.t_1 - ALMOST_NONE) / max(1, self.steps - 2)
        alphas = [ALMOST_NONE + rise * i for i in range(self.steps - 1)]
        x = self.noise(logits)
        for alpha, less_noisy in itertools.pairwise(alphas):
            mean = (logits + self.evidence(x, logits, alpha)).softmax(-1)
            x = less_noisy * mean + (1 - less_noisy) / (1 - alpha) * (x - alpha * mean)
        return x

    def noise(self, logits: Tensor) -> Tensor:
        r"""The noise at the last time, ``[*batch, K, C]``."""
        return sampling.normal(logits, 1)[0]

    def evidence(self, x: Tensor, logits: Tensor, alpha: float) -> Tensor:
        r"""What x says of the categories: the logarithm of its density given each, but for a constant."""
        return alpha / (1 - alpha) ** 2 * x


class ReDGECov(ReDGE):
    r"""ReDGE whose noise has the mean and the variances of z itself: probabilities p, and p (1 - p), at least 0.1.

    The noise then lies where z does. The draws are further from the softmax's probabilities than those of
    :class:`ReDGE`: 0.67, 0.24 and 0.09 become 0.70, 0.23 and 0.07 by default. What else is said there holds here too;
    where the draws matter prefer it. The least variance is that of the released code.

    References:
        | Categorical Reparameterization with Denoising Diffusion models (Gourevitch et al., 2026)
        | https://arxiv.org/abs/2601.00781

    Arguments:
        steps: Number of times, that of z itself included, at least 2; at all others the denoiser is evaluated.
        t_1: Strength ``sigma`` of the noise at the time next to z, above 0 and below 1; ``alpha`` is 1 - sigma.
    """

    worth_trying = ({"t_1": 0.3}, {"t_1": 0.9})  # as for ReDGE

    def noise(self, logits: Tensor) -> Tensor:
        p = logits.softmax(-1)
        return p + variance(p).sqrt() * super().noise(logits)

    def evidence(self, x: Tensor, logits: Tensor, alpha: float) -> Tensor:
        p, sigma = logits.softmax(-1), 1 - alpha
        return (alpha * (x - sigma * p) - alpha**2 / 2) / (variance(p) * sigma**2)


class ReinDGE(ReDGE):
    r"""ReDGE whose last step has :class:`ReinMax`'s Jacobian in place of the softmax's.

    What the logits do in the last denoiser goes through the Jacobian of :class:`ZGR`, ReinMax at temperature 1, at the
    draw; what they do through the noisy point goes as in :class:`ReDGE`. As the noise grows it becomes ZGR. The draws
    are ReDGE's, so the bias is not ReinMax's either: where it matters prefer that one.

    References:
        | Categorical Reparameterization with Denoising Diffusion models (Gourevitch et al., 2026)
        | https://arxiv.org/abs/2601.00781

    Arguments:
        steps: Number of times, that of z itself included, at least 2; at all others the denoiser is evaluated.
        t_1: Strength ``sigma`` of the noise at the time next to z, above 0 and below 1; ``alpha`` is 1 - sigma.
    """

    worth_trying = ({"t_1": 0.3}, {"t_1": 0.9})  # as for ReDGE

    def draw(self, logits: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = wide.detach() + self.evidence(self.last_point(wide), wide, 1 - self.t_1)
        mean = weights.softmax(-1)
        hard = sampling.draw(mean.detach().log(), 1)
        if torch.is_grad_enabled():
            hard = pulled_back(wide, hard, ZGR().pullback(weights.detach(), hard))
        return straight_through(hard, mean).to(logits.dtype)


def variance(p: Tensor) -> Tensor:
    r"""Variances of one-hot variables, none of them below a least one."""
    return (p * (1 - p)).clamp(min=LEAST_VARIANCE)
