from torch import Tensor

from hardmax.checks import positive

from . import sampling
from .pathwise import Pathwise


class Softmax(Pathwise):
    r"""The deterministic relaxation: the objective at the probabilities, ``f(softmax(logits / temperature))``.

    No noise and no variance, but another problem: the model may learn to use mixtures of categories that the
    discrete variables cannot express. Use it as a baseline for what discreteness costs, not where discrete
    samples are needed at the end.

    Arguments:
        temperature: Divides the logits, above 0. Below 1 the mixtures are sharper and the gradients rarer.
    """

    target, attaches_log_q = "relaxed", True
    worth_trying = ({"temperature": 0.3}, {"temperature": 1.0})  # as for Gumbel-softmax

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = positive(temperature=temperature)

    def draw(self, logits: Tensor) -> Tensor:
        return sampling.softmax(logits / self.temperature).unsqueeze(0)
