"""Identities of REINFORCE and its baselines, of NVIL and MuProp, and of AR, ARS and ARSM."""

import math

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import (
    AR,
    ARS,
    ARSM,
    NVIL,
    ARSMPlus,
    MuProp,
    Reinforce,
    StochasticStraightThrough,
    muprop,
    sampling,
)
from hardmax.estimators.arsm import Race

PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.4)
ALL = [
    Reinforce(baseline="none"),
    Reinforce(samples=3, baseline="leave_one_out"),
    Reinforce(baseline="batch"),
    Reinforce(baseline="greedy"),
    Reinforce(baseline="sample"),
    Reinforce(3, "group"),
    Reinforce(3, "leave_one_out", normalise="group"),
    Reinforce(baseline="batch", normalise="batch"),
    NVIL(),
    MuProp(),
    AR(),
    ARS(),
    ARSM(),
]
SHIFT_INVARIANT = [e for e in ALL if type(e) not in (AR, NVIL) and getattr(e, "baseline", "") != "none"]


def name(estimator):
    normalise = f"-{estimator.normalise}" if isinstance(estimator, Reinforce) and estimator.normalise != "none" else ""
    return f"{type(estimator).__name__}-{getattr(estimator, 'baseline', '')}{normalise}"


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_gradient_sums_to_zero_over_categories(estimator):
    c.check_sum_over_categories(estimator, PROBLEM)


@pytest.mark.parametrize("estimator", SHIFT_INVARIANT, ids=name)
def test_constants_have_no_gradient_in_any_draw(estimator):
    c.check_constants(estimator, PROBLEM)


def test_leave_one_out_is_the_classical_form():
    estimator = Reinforce(samples=4, baseline="leave_one_out")
    logits = PROBLEM.logits.clone().requires_grad_()
    cost = PROBLEM.objective(PROBLEM.parameters)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(estimator(logits, cost).sum(), logits)
    torch.manual_seed(2)
    z = sampling.draw(logits, 4)
    f = cost(z)[..., None, None]
    expected = ((f - f.mean(0)) * (z - logits.softmax(-1))).sum(0) / 3
    assert torch.allclose(found, expected)


def test_the_greedy_baseline_is_the_cost_of_the_most_probable_categories():
    logits, cost = PROBLEM.logits.clone().requires_grad_(), PROBLEM.objective(PROBLEM.parameters)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(Reinforce(baseline="greedy")(logits, cost).sum(), logits)
    torch.manual_seed(2)
    z, mode = sampling.draw(logits, 1), torch.nn.functional.one_hot(PROBLEM.logits.argmax(-1), PROBLEM.C).double()
    expected = (cost(z) - cost(mode.unsqueeze(0)))[0, ..., None, None] * (z[0] - PROBLEM.logits.softmax(-1))
    assert torch.allclose(found, expected)


def test_running_mean_follows_the_costs_and_only_between_steps():
    estimator = Reinforce(decay=0.8)  # at one half a share and its complement could be mixed up
    seen = []
    for cost in (4.0, 8.0):
        estimator(torch.zeros(2, 1, 3, requires_grad=True), lambda z, cost=cost: torch.full(z.shape[:-2], cost))
        estimator.advance()
        seen.append(float(estimator.running()))
    assert seen == pytest.approx([4.0, (4.0 * 0.8 + 8.0) / 1.8])
    estimator.eval()
    estimator(torch.zeros(2, 1, 3, requires_grad=True), lambda z: torch.full(z.shape[:-2], 100.0))
    estimator.advance()
    assert float(estimator.running()) == pytest.approx(seen[-1]), "measuring moved the baseline"


# ---------------------------------------------------------------- NVIL

CONTEXT = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.5, 0.0]], dtype=torch.float64)  # of PROBLEM's two examples


def nvil(mean=0.0, variance=0.0, **options):
    """An NVIL whose running mean and variance are these."""
    estimator = NVIL(**options)
    estimator.running.total.copy_(torch.tensor([mean, variance], dtype=torch.float64))
    estimator.running.weight.fill_(1.0)
    return estimator


def with_context(estimator):
    def run(draws):
        logits, parameters = PROBLEM.leaves(draws)
        cost = estimator(logits, PROBLEM.objective(parameters), CONTEXT.expand(draws, *CONTEXT.shape))
        return PROBLEM.gradients(cost, logits, parameters)

    return run


def learned_gradients(estimator, objective, copies=1, context=CONTEXT):
    """What a backward pass of the mean cost leaves in the estimator's own parameters."""
    estimator.zero_grad()
    logits = PROBLEM.logits.expand(copies, *PROBLEM.logits.shape).clone().requires_grad_()
    context = None if context is None else context.expand(copies, *context.shape)
    estimator(logits, objective, context).mean().backward()
    return [p.grad for p in estimator.parameters()]


def constant(values):
    return lambda z: torch.as_tensor(values, dtype=z.dtype).expand(z.shape[:-2])


@pytest.mark.parametrize("standard_deviation", [0.5, 3.0])
def test_nvil_is_the_gradient_over_the_standard_deviation_where_that_exceeds_1(standard_deviation):
    estimator = nvil(1.5, standard_deviation**2, normalise=True)
    assert not estimator.unbiased
    value, gradient, of_parameters = PROBLEM.truth()
    truth = [value, gradient / max(1.0, standard_deviation), of_parameters]
    c.assert_close(c.enumerate_draws(with_context(estimator), 1), truth, "normalised")
    without = nvil(1.5, standard_deviation**2)
    assert without.unbiased
    c.assert_close(c.enumerate_draws(with_context(without), 1), PROBLEM.truth(), "not normalised")


def test_nvil_trains_its_baseline_alone_on_the_squared_error():
    estimator, f, mean = nvil(0.7), torch.tensor([2.0, -1.0], dtype=torch.float64), 0.7
    found = learned_gradients(estimator, constant(f))
    parameters = list(estimator.parameters())
    assert len(parameters) == 4
    loss = (f - estimator.baseline(CONTEXT) - mean).square().mean()
    for a, b in zip(found, torch.autograd.grad(loss, parameters), strict=True):
        assert torch.allclose(a, b)
    context = CONTEXT.clone().requires_grad_()
    estimator(PROBLEM.logits.clone().requires_grad_(), constant(f), context).mean().backward()
    assert context.grad is None, "the auxiliary loss reached the context"


def test_nvil_trains_its_baseline_as_much_whatever_the_number_of_copies():
    estimator, f = nvil(), constant([2.0, -1.0])
    for a, b in zip(learned_gradients(estimator, f), learned_gradients(estimator, f, copies=7), strict=True):
        assert torch.allclose(a, b)


def test_nvil_trains_nothing_when_measured_and_computes_no_baseline_without_gradients(monkeypatch):
    estimator = nvil().eval()
    assert learned_gradients(estimator, constant(1.0), context=None) == [None]
    estimator.train()
    monkeypatch.setattr(estimator, "baseline", None)
    with torch.no_grad():
        estimator(PROBLEM.logits, constant(1.0))
    assert not estimator.running.pending


def test_nvil_s_running_mean_and_variance_are_those_of_steps_before():
    estimator = NVIL(decay=0.5, normalise=True)
    torch.nn.init.constant_(estimator.baseline.scalar, 1.0)
    scores, seen = [], []
    for low, high in [(3.0, 7.0), (4.0, 14.0)]:
        logits = torch.zeros(2, 1, 3, requires_grad=True)
        torch.manual_seed(0)
        estimator(logits, lambda z, values=(low, high): torch.tensor(values).expand(z.shape[:-2])).sum().backward()
        torch.manual_seed(0)
        scores.append((logits.grad / (sampling.draw(logits, 1)[0] - 1 / 3))[:, 0, 0].tolist())
        estimator.advance()
        seen.append(estimator.running().tolist())
    assert scores == [pytest.approx([2.0, 6.0]), pytest.approx([(3 - 4) / 2, (13 - 4) / 2])]
    assert seen == [pytest.approx([4.0, 4.0]), pytest.approx([(4 + 2 * 8) / 3, (4 + 2 * 25) / 3])]
    estimator.eval()
    estimator(torch.zeros(2, 1, 3, requires_grad=True), constant(100.0))
    estimator.advance()
    assert estimator.running().tolist() == seen[-1], "measuring moved the running mean"


def test_nvil_s_baseline_learns_what_the_context_tells():
    torch.manual_seed(0)
    estimator = NVIL(widths=[8])
    logits, f = PROBLEM.logits.clone().requires_grad_(), constant([2.0, -1.0])
    estimator(logits, f, CONTEXT)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        estimator(logits, f, CONTEXT).mean().backward()
        optimizer.step()
        estimator.advance()
    left = torch.tensor([2.0, -1.0]) - estimator.baseline(CONTEXT) - estimator.running()[0]
    assert left.abs().max() < 1e-2


def test_nvil_takes_its_size_from_the_first_context_and_refuses_others():
    estimator = NVIL(widths=[4, 5])
    assert [tuple(p.shape) for p in estimator.parameters()] == [()]
    with torch.no_grad():
        estimator(PROBLEM.logits, constant(1.0), CONTEXT)
    assert [tuple(p.shape) for p in estimator.parameters()] == [(), (4, 3), (4,), (5, 4), (5,), (1, 5)]
    for context, message in [(CONTEXT[:, :2], "the 3 features of the first, got 2"), (CONTEXT[:1], "must be .*, D.")]:
        with pytest.raises(ValueError, match=message):
            estimator(PROBLEM.logits, lambda z: pytest.fail("evaluated"), context)


class UpdatedInTheCall(NVIL):
    """Its running mean has seen the draw it is subtracted from."""

    def estimate(self, logits, objective, context):
        def seen(z):
            cost = objective(z)
            self.running.note(torch.stack([cost.detach().mean(), cost.detach().var(correction=0)]))
            self.advance()
            return cost

        return super().estimate(logits, seen, context)


class MeanOfTheCall(NVIL):
    """Subtracts the mean of the call's own costs, and moves no state."""

    def estimate(self, logits, objective, context):
        def centred(z):
            cost = objective(z)
            self.running.total[0], self.running.weight[()] = cost.detach().mean(), 1.0
            return cost

        cost = super().estimate(logits, centred, context)
        self.running.total.zero_(), self.running.weight.zero_()
        return cost


class ErrorOfTheModel(NVIL):
    """Lets the error of the baseline train what the cost depends on."""

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        error = (cost - self.baseline(context)).square().mean()
        return cost + (error - error.detach()) if self.training else cost


@pytest.mark.parametrize(
    ("wrong", "check", "message"),
    [
        (UpdatedInTheCall, c.check_independent_draws, "depend on each other"),
        (UpdatedInTheCall, c.check_state, "a call moved the state running.total"),
        (MeanOfTheCall, c.check_independent_draws, "depend on each other"),
        (ErrorOfTheModel, c.check_expectation, "gradient is off"),
        (ErrorOfTheModel, c.check_state, "different gradients"),
    ],
)
def test_wrong_baselines_are_rejected(wrong, check, message):
    with pytest.raises(AssertionError, match=message):
        check(wrong(), c.SMALL)


# ---------------------------------------------------------------- MuProp


def test_muprop_is_the_published_form():
    logits, cost = PROBLEM.logits.clone().requires_grad_(), PROBLEM.objective(PROBLEM.parameters)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(MuProp()(logits, cost).sum(), logits)
    torch.manual_seed(2)
    z, p = sampling.draw(logits, 1), logits.softmax(-1)
    mean = p.detach().unsqueeze(0).requires_grad_()
    (slope,) = torch.autograd.grad(cost(mean).sum(), mean)
    rest = cost(z) - cost(mean) - (slope * (z - mean)).sum((-2, -1))
    through = torch.autograd.grad((p * slope[0]).sum(), logits)[0]
    assert torch.allclose(found, rest[0, ..., None, None] * (z - mean)[0] + through)


@pytest.mark.parametrize("log_q", [False, True])
def test_muprop_is_exact_in_every_draw_of_a_linear_objective(log_q):
    problem = c.SmallProblem(2, 3, linear=True)
    torch.manual_seed(0)
    _, found, _ = c.runner(MuProp(), problem, log_q)(50)
    assert (found - problem.truth(log_q)[1]).abs().max() < 1e-12


def test_muprop_is_unbiased_whatever_the_slope():
    """Here that of a biased estimator in the objective, which is noisy as well."""
    nested = c.Nested(c.SmallProblem(1, 3), c.SmallProblem(1, 2))
    found, truth = c.enumerate_draws(nested.run(MuProp(), StochasticStraightThrough())), nested.truth()
    assert (found[1] - truth[1]).abs().max() < 1e-10, "the upper logits' gradient"
    assert (found[2] - truth[2]).abs().max() > 1e-3, "the slope was not biased"


def test_muprop_leaves_the_objective_its_ordinary_gradient():
    gradients = []
    for estimator in (MuProp(), Reinforce(baseline="none")):
        torch.manual_seed(1)
        gradients.append(c.runner(estimator, PROBLEM)(20)[2])
    assert torch.equal(*gradients)


def test_muprop_without_the_expansion_s_gradient_is_rejected(monkeypatch):
    monkeypatch.setattr(muprop, "through_softmax", lambda p, g: torch.zeros_like(g))
    assert "logits' gradient is off" in c.failures(MuProp(), first=True)[0]


# ---------------------------------------------------------------- races


def test_the_race_draws_from_the_softmax():
    logits = torch.tensor([[0.5, -1.0, 1.0, 0.0]], dtype=torch.float64)
    torch.manual_seed(0)
    draws = 200_000
    frequency = Race(logits.expand(draws, 1, 4)).winner()[0].mean(0)
    p = logits.softmax(-1)
    z = (frequency - p).abs() / (p * (1 - p) / draws).sqrt()
    assert z.max() < 3.9, "four coordinates, one false alarm in 2,500"


@pytest.mark.parametrize("C", [2, 3, 4, 7])
def test_pseudo_actions_are_those_of_swapped_noise(C):
    torch.manual_seed(C)
    logits = torch.randn(40, 3, C)
    race = Race(logits)
    pairs = torch.cartesian_prod(torch.arange(C), torch.arange(C)).T
    fast = race.swapped(*pairs)
    for n, (m, j) in enumerate(pairs.T.tolist()):
        noise = race.log_noise.clone()
        noise[..., [m, j]] = noise[..., [j, m]]
        slow = sampling.one_hot((noise - logits).argmin(-1), logits)
        assert torch.equal(fast[n], slow), f"swap of {m} and {j}"
        if m == j:
            assert torch.equal(slow, race.winner()[0])


def test_arsm_is_ars_averaged_over_the_reference():
    objective = PROBLEM.objective(PROBLEM.parameters)
    torch.manual_seed(0)
    race = Race(PROBLEM.logits)
    cost = objective(race.winner())[0]
    merged = ARSM().gradient(race, cost, objective)
    total = torch.zeros_like(merged)
    for j in range(PROBLEM.C):
        with c.patched(categorical=lambda logits, samples, j=j: torch.full((samples, *logits.shape[:-1]), j)):
            total += ARS().gradient(race, cost, objective)
    assert torch.allclose(merged, total / PROBLEM.C)


def test_two_categories_give_arm():
    """ARM: (f(z(u)) - f(z(1 - u))) (1/2 - u), with z = 1 where u < sigmoid(phi_1 - phi_2)."""
    logits = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(1000, 1, 2).clone().requires_grad_()
    values = torch.tensor([2.0, -1.0], dtype=torch.float64)
    torch.manual_seed(1)
    cost = ARSM()(logits, lambda z: (z @ values).sum(-1))
    (found,) = torch.autograd.grad(cost.sum(), logits)
    torch.manual_seed(1)
    u = Race(logits).pi()[..., 0]
    s = (logits[..., 0] - logits[..., 1]).sigmoid()
    f = lambda u: torch.where(u < s, values[0], values[1])
    assert torch.allclose(found[..., 0], (f(u) - f(1 - u)) * (0.5 - u))


@pytest.mark.parametrize(("estimator", "expected"), [(AR(), (1, 0)), (ARS(), (1, 4)), (ARSM(), (1, 10))], ids=name)
def test_evaluations(estimator, expected):
    assert c.evaluations(estimator, c.SmallProblem(2, 5, extreme=0.3)) == expected


@pytest.mark.parametrize("estimator", [ARSM, ARSMPlus])
def test_too_many_categories_are_refused_before_the_objective(estimator):
    with pytest.raises(ValueError, match=r"limit is 256 categories, but the logits have 257, for which .* 32,897 eval"):
        estimator()(torch.zeros(2, 1, 257), lambda z: pytest.fail("the objective was evaluated"))
    with pytest.raises(ValueError, match="limit must be an integer of at least 1, got 0"):
        estimator(limit=0)


def test_memory_stays_bounded_with_256_categories():
    logits = torch.zeros(4, 2, 256, requires_grad=True)
    largest = 0

    def objective(z):
        nonlocal largest
        largest = max(largest, z.numel())
        return z[..., 0].sum(-1)

    ARSM()(logits, objective).sum().backward()
    assert logits.grad.isfinite().all()
    assert largest <= 2**18 < logits.numel() * 256 * 255 / 2


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ({"samples": 1.5}, "samples must be an integer of at least 1, got 1.5"),
        (
            {"baseline": "mean"},
            "baseline must be one of none, running_mean, leave_one_out, batch, greedy, sample, group, got 'mean'",
        ),
        ({"baseline": "group"}, "samples must be at least 2 with baseline=group, got 1"),
        ({"normalise": "group"}, "samples must be at least 2 with normalise=group, got 1"),
        ({"normalise": "example"}, "normalise must be one of none, group, batch, got 'example'"),
        ({"baseline": "leave_one_out"}, "samples must be at least 2 with baseline=leave_one_out, got 1"),
        ({"decay": 1.0}, "decay must be from 0 up to but not including 1, got 1.0"),
        ({"decay": math.nan}, "decay must be from 0 up to but not including 1, got nan"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message.replace("(", r"\(")):
        Reinforce(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [0]}, "widths must be an integer of at least 1, got 0"),
        ({"decay": 1.0}, "decay must be from 0 up to but not including 1, got 1.0"),
        ({"normalise": "yes"}, "normalise must be one of True, False, got 'yes'"),
    ],
)
def test_bad_options_of_nvil_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        NVIL(**options)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3), (5, 1, 2, 3)])
@pytest.mark.parametrize("option", ["baseline", "normalise"])
def test_batch_needs_other_examples(shape, option):
    with pytest.raises(ValueError, match=f"{option}=batch needs at least 2 examples"):
        Reinforce(**{option: "batch"})(torch.zeros(shape, requires_grad=True), lambda z: pytest.fail("evaluated"))
