r"""The checks at the limits of floating point numbers: extreme logits, small problems, precisions, compilation."""

import torch
from torch import Tensor

from hardmax.estimators import Estimator
from hardmax.gradients.enumeration import Failed, require

from . import expectations
from .expectations import MeanOfDraws
from .problems import SmallProblem

INF = torch.inf
EXTREME = [
    (1.0, 2.0, 3.0),
    (1e3, 2e3, 3e3),
    (-1e3, 1.0, 1e4),
    (1e4, -1e4, 0.0),
    (0.0, 0.0, -INF),
    (-INF, 0.0, -INF),
]
PRECISIONS = ["float32", "bfloat16", "float64"]
# Of a mean, relative to the largest coordinate.
ROUNDING_OF_PRECISION = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.03}
MEANS_OF = 20_000  # draws, for each precision


def check_extreme_logits(estimator: Estimator, logits: tuple[float, ...], precision: str = "float32") -> None:
    r"""Value and gradients are finite, of the precisions due; categories of probability 0 get no gradient."""
    dtype = getattr(torch, precision)
    what = f"logits {list(logits)} in {precision}"
    leaf = torch.tensor(logits, dtype=dtype).expand(2, 1, len(logits)).clone().requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=dtype, requires_grad=True)
    cost = estimator(leaf, lambda z: (of_precision(z, dtype, f"{what}: ") @ weight).sum(-1) ** 2, log_q=True)
    check_of_cost(cost, dtype, what)
    backward(cost)
    named = {"the value": cost, "the logits' gradient": leaf.grad, "the parameters' gradient": weight.grad}
    for name, x in named.items():
        require(x is None or x.isfinite().all(), f"{what}: {name} is {list_of_first(x)}")
    impossible = leaf.grad[leaf == -INF] if leaf.grad is not None else torch.zeros(())
    require((impossible == 0).all(), f"{what}: a category of probability 0 gets a gradient")


def check_of_cost(cost: Tensor, dtype: torch.dtype, what: str) -> None:
    r"""The cost of an objective whose costs have a precision has that precision, but float32 at least."""
    due = torch.promote_types(dtype, torch.float32)
    require(cost.dtype == due, f"{what}: the cost has precision {cost.dtype}, not {due}")


def of_precision(z: Tensor, dtype: torch.dtype, what: str = "") -> Tensor:
    r"""What the objective is evaluated at, which has the precision of the logits."""
    require(z.dtype == dtype, f"{what}z has precision {z.dtype} for logits of {dtype}: draws are .to(logits.dtype)")
    return z


def backward(cost: Tensor) -> None:
    r"""The backward pass of the sum, if anything wants it."""
    if cost.requires_grad:
        cost.sum().backward()


def list_of_first(x: Tensor) -> str:
    r"""The first example of a batch, or of a vector, in words."""
    return expectations.list_of((x if x.ndim < 2 else x[0]).detach().float().flatten())


def check_smallest_problem(estimator: Estimator, K: int, C: int) -> None:
    r"""One category, where there is nothing to choose, one variable, or two categories: finite, and exact for one."""
    what = f"{K} variables of {C} categories"
    leaf = torch.zeros(2, K, C, requires_grad=True)
    cost = estimator(leaf, lambda z: (z * z).sum((-2, -1)) + 1)
    backward(cost)
    gradient = torch.zeros(2, K, C) if leaf.grad is None else leaf.grad
    require(cost.isfinite().all(), f"{what}: the value is {list_of_first(cost)}")
    require(gradient.isfinite().all(), f"{what}: the logits' gradient is {list_of_first(gradient)}")
    if C == 1:
        require(
            torch.allclose(cost, torch.full_like(cost, K + 1.0)),
            f"{what}: the value is {list_of_first(cost)}, not {K + 1}",
        )
        require((gradient.abs() < 1e-6).all(), f"{what}: a variable with one category has no gradient")


def check_precision(estimator: Estimator, problem: SmallProblem, precision: str) -> None:
    r"""The mean gradient in a precision is that in float64, but for rounding."""
    means = []
    for dtype in (getattr(torch, precision), torch.float64):
        torch.manual_seed(7)
        logits = problem.logits.bfloat16().to(dtype)  # the same numbers in every precision
        leaf = logits.expand(MEANS_OF, *logits.shape).clone().requires_grad_()
        objective = problem.objective([p.bfloat16().to(dtype) for p in problem.parameters])
        cost = estimator(leaf, lambda z, f=objective, like=dtype: f(of_precision(z, like)).to(z.dtype))
        check_of_cost(cost, dtype, f"{precision} logits")
        gradient = torch.autograd.grad(cost.sum(), leaf, allow_unused=True)[0] if cost.requires_grad else None
        gradient = torch.zeros_like(leaf) if gradient is None else gradient
        require(gradient.isfinite().all(), f"{precision}: the logits' gradient is not finite")
        means.append(MeanOfDraws())
        means[-1].add(torch.cat([cost.detach().reshape(MEANS_OF, -1), gradient.flatten(1)], -1).double())
    ours, theirs = means
    tolerance = ROUNDING_OF_PRECISION[precision] * theirs.mean.abs().max()
    error = (ours.error() ** 2 + theirs.error() ** 2).sqrt()
    beyond = (ours.mean - theirs.mean).abs() - tolerance - 5 * error
    if beyond.max() > 0:
        i = int(beyond.argmax())
        raise Failed(
            f"{precision}: a mean over {MEANS_OF} draws is {ours.mean[i]:.4g}, {theirs.mean[i]:.4g} in float64 "
            f"(standard error {error[i]:.1g})"
        )


def check_compiles(estimator: Estimator, problem: SmallProblem) -> None:
    r"""A call can be traced in one graph, forward and backward, and gives the same numbers as it does untraced."""

    def call(logits: Tensor) -> Tensor:
        return estimator(logits, problem.objective(problem.parameters))

    results = []
    torch.compiler.reset()  # of the many estimators that came before, each was another version of this call
    for function in (call, torch.compile(call, backend="aot_eager", fullgraph=True)):
        logits, _ = problem.leaves(4)
        torch.manual_seed(3)
        try:
            cost = function(logits)
        except Exception as error:
            if function is call:
                raise
            raise Failed(f"torch.compile: {' '.join(str(error).split())[:200]}") from error
        backward(cost)
        results.append([cost.detach(), torch.zeros_like(logits) if logits.grad is None else logits.grad])
    for name, plain, traced in zip(("value", "logits' gradient"), *results, strict=True):
        difference = (plain - traced).abs().max()
        require(difference < 1e-9, f"torch.compile changes the {name} by {difference:.1e}")
