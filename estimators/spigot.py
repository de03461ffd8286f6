import torch
from torch import Tensor

from hardmax.checks import one_of

from . import sampling
from .imle import BlackBox
from .sparse import sparsemax

UPDATES = ("projected", "cross_entropy", "exponentiated")


class SPIGOT(BlackBox):
    r"""The most probable categories against a better point of the simplex, one step down the objective's derivative g.

    As :class:`BlackBox`, but the step is in the space of choices, not in that of logits. ``projected``: from the
    one-hot z to ``sparsemax(z - step g)``, the nearest point of the simplex. ``cross_entropy``: the same from the
    probabilities p. ``exponentiated``: from p to ``softmax(logits - step g)``; for small steps that is
    :class:`StraightThrough`. In all, the gradient is the difference over ``step``, by which the authors do not divide:
    there the learning rate has to make up for it. g is that at z, in one evaluation.

    No variance, and nothing is explored. ``projected`` does not look at the probabilities, and never lowers a category
    that is not chosen. Where draws will be used in the end, prefer :class:`StochasticStraightThrough`. The gradient is
    not linear in g, and ``rsample`` steps along the derivative of the loss itself: in a mean over B examples that is B
    times shorter.

    References:
        | Backpropagating through Structured Argmax using a SPIGOT (Peng et al., 2018), which projects
        | https://arxiv.org/abs/1805.04658
        | Understanding the Mechanics of SPIGOT: Surrogate Gradients for Latent Structure Learning
          (Mihaylova et al., 2020), the other two
        | https://arxiv.org/abs/2010.02357

    Arguments:
        step: Length of the step, in units of the derivative; above 0.
        update: ``projected``, ``cross_entropy`` or ``exponentiated``.
    """

    also_known_as = ("SPIGOT-CE: update=cross_entropy", "SPIGOT-EG: update=exponentiated")
    worth_trying = ({"update": "projected"}, {"update": "exponentiated"})  # the oldest, and what looks at p

    def __init__(self, step: float = 1.0, update: str = "projected"):
        super().__init__(step)
        self.update = one_of(UPDATES, update=update)

    def change(self, logits: Tensor, perturbed: Tensor, g: Tensor) -> Tensor:
        wide = perturbed.to(torch.promote_types(g.dtype, perturbed.dtype))  # the logits, without noise
        chosen = self.update == "projected"
        before = sampling.one_hot(wide.argmax(-1), wide) if chosen else sampling.softmax(wide)
        if self.update == "exponentiated":
            return (before - sampling.softmax(wide - self.step * g)) / self.step
        return (before - sparsemax((before - self.step * g).masked_fill(wide == -torch.inf, -torch.inf))) / self.step
