r"""Samplers: any z = f(logits), as an estimator, and the checks of what every sampler must do."""

from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators.pathwise import Pathwise
from hardmax.gradients.enumeration import Failed, require

from . import expectations
from .behaviour import check_no_correlation
from .limits import list_of_first
from .problems import SmallProblem

DRAWS_WITHOUT_NAN = 2_000_000  # draws among which no value may be NaN or infinite
FEW = 1_000


class Sampler(Pathwise):
    r"""Any function ``[..., C] -> [..., C]`` from logits to z, as an estimator: objective(z), and autograd.

    It claims nothing of its gradient. Its ``target`` is what it is seen to draw: one-hot z (``expectation``), always
    the most probable categories (``mode``), or points of the simplex (``relaxed``).

    Arguments:
        function: From logits to z; of a tuple, the first is z.
        options: Its other arguments, by name.
    """

    def __init__(self, function: Callable, **options: object):
        super().__init__()
        self.function, self.options = function, options
        self.compiles = False  # nothing is claimed
        self.target = "relaxed"
        state = torch.get_rng_state()
        torch.manual_seed(0)
        try:
            logits = torch.tensor([[0.5, 0.0, -0.5]], dtype=torch.float64).repeat(FEW, 1, 1)
            with torch.no_grad():
                z = self.draw(logits)[0]
            if is_one_hot(z):
                always = (z.argmax(-1) == 0).all()
                self.target = "mode" if always else "expectation"
        except Exception:  # the checks say what is wrong with it
            pass
        finally:
            torch.set_rng_state(state)

    def draw(self, logits: Tensor) -> Tensor:
        z = self.function(logits, **self.options)
        return (z[0] if isinstance(z, tuple) else z).unsqueeze(0)


def is_one_hot(z: Tensor) -> bool:
    r"""Whether z ``[..., C]`` is 1 in one place and 0 elsewhere, to rounding."""
    return bool(torch.isclose(z, torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z), atol=1e-6).all())


def check_draw(sampler: Sampler, problem: SmallProblem) -> None:
    r"""A call gives z, which every other check begins with."""
    sampler.draw(problem.logits)


def check_simplex(sampler: Sampler, problem: SmallProblem) -> None:
    r"""z has shape and precision of the logits, whatever the leading dimensions, and is one-hot or on the simplex."""
    for lead in [(), (3,), (2, 3), (2, 1, 3)]:
        logits = problem.logits.repeat(*lead, 1, 1)
        z = sampler.draw(logits)[0].detach()
        require(z.shape == logits.shape, f"z has shape {list(z.shape)} for logits of shape {list(logits.shape)}")
        require(z.dtype == logits.dtype, f"z has precision {z.dtype} for logits of {logits.dtype}")
    z = sampler.draw(problem.logits.repeat(FEW, 1, 1))[0].detach()
    total = z.sum(-1)
    outside = f"z is neither one-hot nor on the simplex: {list_of_first(z)}"
    require(bool((z > -1e-6).all()) and torch.allclose(total, torch.ones_like(total), atol=1e-6), outside)
    require(sampler.target == "relaxed" or is_one_hot(z), f"z is one-hot in some draws only: {list_of_first(z)}")


def check_law(sampler: Sampler, problem: SmallProblem) -> None:
    r"""One-hot z, all variables together, have the softmax's probabilities, or are the most probable categories."""
    z = lambda draws: sampler.draw(problem.logits.repeat(draws, 1, 1))[0].detach()
    if sampler.target == "mode":
        expected = problem.logits.argmax(-1)
        require((z(FEW).argmax(-1) == expected).all(), "z does not change, but is not at the most probable categories")
        return
    every = problem.one_hots().flatten(1)  # [C ** K, K C]
    law = (every @ problem.logits.log_softmax(-1).flatten()).exp()

    def run(draws: int) -> list[Tensor]:
        return [(z(draws).flatten(1) @ every.T > problem.K - 0.5).double()]

    what = f"{problem.K} variables of {problem.C} categories: the law of z is not the softmax"
    expectations.assert_mean(run, [law], what)


def check_fresh_noise(sampler: Sampler, problem: SmallProblem) -> None:
    r"""A second call has noise of its own; with no noise there is nothing to check."""
    first, second = (sampler.draw(problem.logits.repeat(FEW, 1, 1))[0].detach() for _ in range(2))
    random = bool((first != first[:1]).any())
    require(not random or not torch.equal(first, second), "a second call has the noise of the first: it seeds itself")


def check_law_of_each(sampler: Sampler, problem: SmallProblem) -> None:
    r"""One-hot z of two examples with other logits have each the law of its own."""
    if sampler.target == "mode":
        return
    both = torch.stack([problem.logits, 1.5 * problem.logits.flip(-1)])

    def run(draws: int) -> list[Tensor]:
        return [sampler.draw(both.repeat(draws, 1, 1, 1))[0].detach().double().flatten(1)]

    what = "z of an example has not the law of its own logits"
    expectations.assert_mean(run, [both.softmax(-1).flatten()], what)


def check_independent_samples(sampler: Sampler, problem: SmallProblem) -> None:
    r"""z along leading dimensions share no noise."""

    def draws(pairs: int) -> Tensor:
        return sampler.draw(problem.logits.repeat(pairs, 2, 1, 1))[0].detach().flatten(2)

    check_no_correlation(draws, "z")


def check_gradient_reaches_logits(sampler: Sampler, problem: SmallProblem) -> None:
    r"""The cost of z has a gradient to the logits that is not 0 throughout."""
    logits, parameters = problem.leaves(FEW)
    torch.manual_seed(5)
    cost = sampler(logits, problem.objective(parameters))
    found = torch.autograd.grad(cost.sum(), logits, allow_unused=True)[0]
    require(found is not None and bool((found != 0).any()), "no gradient of the cost reaches the logits")


def check_many_draws_are_finite(sampler: Sampler, precision: str) -> None:
    r"""No draw among :data:`DRAWS_WITHOUT_NAN` is NaN or infinite."""
    torch.manual_seed(5)
    bad, logits = 0, torch.zeros(DRAWS_WITHOUT_NAN // 20, 4, 5, dtype=getattr(torch, precision))
    with torch.no_grad():
        for _ in range(5):
            bad += int((~sampler.draw(logits).isfinite()).any(-1).sum())
    if bad:
        raise Failed(
            f"{precision}: z is NaN or infinite in {bad:,} of {DRAWS_WITHOUT_NAN:,} draws of 5 categories at logits 0"
        )
