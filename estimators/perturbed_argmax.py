from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.checks import at_least, one_of, positive

from . import sampling
from .pathwise import Pathwise
from .straight_through import pulled_back, with_a_choice


class PerturbedArgmax(Pathwise):
    r"""The mean of one-hot vectors of perturbed logits' maxima, with the derivative of their expectation.

    The objective sees the mean over ``noises``, a point inside the simplex, so it must make sense there. The Jacobian
    of the expected one-hot vector is the mean of z times the noise's score, from the same noises: it needs nothing but
    maxima, and so is of use where z solves a problem. Of categorical variables, with Gumbel noise of scale 1, that
    expectation is the softmax, and its Jacobian is known: :class:`Softmax` has both without variance.

    For an objective that is linear in each variable given the others, value and gradient are then right on average,
    with any control variate; for others in general neither is. The mean over the other noises mostly lowers the
    variance, but adds to it where the derivative's mean over the categories is near 0; the most probable category
    lowers or raises it.

    References:
        | Learning with Differentiable Perturbed Optimizers (Berthet et al., 2020)
        | https://arxiv.org/abs/2002.08676
        | Generalizing Stochastic Smoothing for Differentiation and Gradient Estimation (Petersen et al., 2024), with
          both control variates
        | https://arxiv.org/abs/2410.08125

    Arguments:
        noises: Number of noises, at least 1; at least 2 with leave_one_out.
        scale: Of the noise, above 0.
        noise: gumbel or normal.
        control_variate: What is subtracted from z: none, argmax (of the logits) or leave_one_out.

    Raises:
        ValueError: For a single noise with leave_one_out.
    """

    target = "draws"
    worth_trying = ({"scale": 0.5}, {"scale": 1.0})  # sharper than the softmax, and as sharp

    def __init__(
        self, noises: int = 10, scale: float = 1.0, noise: str = "gumbel", control_variate: str = "leave_one_out"
    ):
        super().__init__()
        self.noises, self.scale = at_least(1, noises=noises), positive(scale=scale)
        self.noise = one_of(("gumbel", "normal"), noise=noise)
        self.control_variate = one_of(("none", "argmax", "leave_one_out"), control_variate=control_variate)
        if noises < 2 and control_variate == "leave_one_out":
            raise ValueError(f"noises must be at least 2 with control_variate=leave_one_out, got {noises}")

    def draw(self, logits: Tensor) -> Tensor:
        wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
        noise = (sampling.gumbel if self.noise == "gumbel" else sampling.normal)(wide, self.noises)
        z = sampling.one_hot((wide + self.scale * noise).argmax(-1), wide)
        mean = z.mean(0, keepdim=True).to(logits.dtype)
        return pulled_back(logits, mean, self.pullback(wide, noise, z)) if torch.is_grad_enabled() else mean

    def pullback(self, logits: Tensor, noise: Tensor, z: Tensor) -> Callable[[Tensor], Tensor]:
        r"""The transposed Jacobian of the mean, as a function of g ``[1, *batch, K, C]`` to one of that shape.

        Arguments:
            logits: ``[*batch, K, C]``.
            noise: ``[noises, *batch, K, C]``.
            z: One-hot vectors of the maxima, of the shape of the noise.
        """
        score = 1 - (-noise).exp() if self.noise == "gumbel" else noise
        moved = with_a_choice(logits)

        def pullback(g: Tensor) -> Tensor:
            along = ((z - self.subtracted(logits, z)) * g).sum(-1, keepdim=True)
            return (score * along).mean(0, keepdim=True).masked_fill(~moved, 0.0) / self.scale

        return pullback

    def subtracted(self, logits: Tensor, z: Tensor) -> Tensor:
        r"""The control variate, of the shape of z or ``[*batch, K, C]``."""
        if self.control_variate == "none":
            return torch.zeros_like(logits)
        if self.control_variate == "argmax":
            return sampling.one_hot(logits.argmax(-1), logits)
        return (z.sum(0) - z) / (self.noises - 1)
