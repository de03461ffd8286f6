import itertools
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hardmax.checks import at_least

from .base import Problem
from .known_cost import KnownCost

FEW_DRAWS = 4096  # draws at most, for the lowest cost of any


class QuadraticForm(KnownCost):
    r"""Cost ``z'Az + b'z`` of K categorical variables, minimised over the logits themselves.

    z has the K one-hot vectors end to end, KC numbers. A is ``Q'Q``; Q, b and the logits at the start are standard
    normal, drawn in this order, or all three come from a file. Each example of a batch is an independent draw of the
    same problem. Figures: ``cost``, the exact expectation; ``optimum``, the lowest cost of any draw, and ``gap``, the
    difference, where there are at most 4,096 draws.

    References:
        | Generalized and Optimal Straight-Through Estimators (Hooper and Shekhovtsov, 2026), bias and variance of
          estimators in the problem of one variable
        | https://openreview.net/forum?id=5LZQfHUVER

    Arguments:
        variables, categories: Numbers K and C.
        drawn: Seed of Q, b and the logits, apart from the run's own.
        file: Path of an .npz file with ``A`` ``[KC, KC]``, ``b`` ``[KC]`` and ``logits`` ``[K, C]``, which replaces
            what is drawn; None: there is none.

    Raises:
        ValueError: If the file cannot be read or is no .npz file, or its arrays have other shapes or no finite numbers.
    """

    A: Tensor
    b: Tensor

    def __init__(self, variables: int = 1, categories: int = 4, drawn: int = 0, file: str | None = None):
        super().__init__()
        K, C = at_least(1, variables=variables), at_least(1, categories=categories)
        D = K * C
        if file is None:
            random = torch.Generator().manual_seed(at_least(0, drawn=drawn))
            Q, b, logits = (torch.randn(shape, generator=random) for shape in ((D, D), (D,), (D,)))
            A = Q.T @ Q
        else:
            A, b, logits = read_form(file, {"A": (D, D), "b": (D,), "logits": (K, C)})
        self.register_buffer("A", A, persistent=False)
        self.register_buffer("b", b, persistent=False)
        self.logits = nn.Parameter(logits.reshape(K, C))
        if K * math.log(C) > math.log(FEW_DRAWS):
            self.figures = {"cost": self.figures["cost"]}

    def problem(self, batch: Tensor) -> Problem:
        return Problem(self.logits.expand(len(batch), *self.logits.shape), self.objective)

    def objective(self, z: Tensor) -> Tensor:
        r"""Cost ``[...]`` of one-hot or relaxed z ``[..., K, C]``."""
        z = z.flatten(-2)
        return ((z @ self.A + self.b) * z).sum(-1)

    def expected_cost(self, logits: Tensor) -> Tensor:
        p = logits.softmax(-1)
        K, C = p.shape[-2:]
        # Two entries of z are independent, unless they are of the same variable: then at most one of them is not 0.
        own = torch.block_diag(*[torch.ones(C, C, device=p.device)] * K) * self.A
        mean = p.flatten(-2)
        apart = ((mean @ (self.A - own)) * mean).sum(-1)
        return apart + (mean * (self.A.diagonal() + self.b)).sum(-1)

    def optimum(self) -> float | None:
        r"""The lowest cost that any draw has; None where there are too many to look."""
        K, C = self.logits.shape
        if K * math.log(C) > math.log(FEW_DRAWS):
            return None
        index = torch.tensor(list(itertools.product(range(C), repeat=K)), device=self.logits.device)
        return float(self.objective(nn.functional.one_hot(index, C).to(self.A.dtype)).min())


def read_form(file: str, shapes: dict[str, tuple[int, ...]]) -> list[Tensor]:
    r"""Arrays of an .npz file, in float32; ValueError, naming the file, unless they are there and have these shapes."""
    try:
        with Path(file).open("rb") as opened:
            arrays = dict(np.load(opened))
    except OSError as error:
        raise ValueError(f"file={file} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"file={file} is no .npz file of plain arrays: {error}") from None
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            found = f"one of {list(arrays[name].shape)}" if name in arrays else "none"
            raise ValueError(f"file={file}: an array {name} of {list(shape)} is expected, and there is {found}")
        if arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"file={file}: {name} must have finite numbers")
    return [torch.tensor(arrays[name], dtype=torch.float32) for name in shapes]
