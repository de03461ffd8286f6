r"""What tasks have in common that minimise a cost over the logits themselves."""

import torch
from torch import Tensor, nn

from .base import Figure, Task


class KnownCost(Task):
    r"""A cost of K variables with a known expectation, minimised over the logits themselves, which are its parameters.

    Each example of a batch is an independent draw of the same problem. Figures: ``cost``, the exact expectation;
    ``optimum``, the lowest there is, and ``gap``, the difference, unless :meth:`optimum` is None.
    """

    figures = {
        "gap": Figure("expected cost above the optimum", better="lower"),
        "cost": Figure("expected cost", better="lower"),
        "optimum": Figure("optimum"),
    }

    def optimum(self) -> float | None:
        r"""The lowest cost that can be reached; None where that is not known."""
        raise NotImplementedError

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return index

    def measurement_batch(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.long, device=next(self.parameters()).device)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        expected = self.expected_cost(self.problem(self.measurement_batch(1)).logits[0])
        assert expected is not None
        cost, optimum = float(expected), self.optimum()
        return {"cost": cost} | ({} if optimum is None else {"optimum": optimum, "gap": cost - optimum})
