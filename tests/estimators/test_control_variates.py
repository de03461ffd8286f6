"""Identities of REBAR, RELAX, double control variates and RODEO, and mistakes that must be rejected."""

import pytest
import torch
from torch import nn

from hardmax import certification as c
from hardmax.estimators import DoubleCV, Rebar, Reinforce, Relax, Rodeo, sampling
from hardmax.estimators.released import RelaxAsReleased, given
from helpers.cases import in_part
from helpers.wrong import ByDefinition

ONE, TWO = c.SmallProblem(1, 4, extreme=0.5), c.SmallProblem(2, 3)
MAKE = {
    "rebar": lambda: Rebar(temperature=0.7, scale=0.6),
    "relax": lambda: Relax(temperature=0.7, scale=0.4, width=8),
    "double_cv, 2": lambda: DoubleCV(2),
    "double_cv, 3": lambda: DoubleCV(3),
    "rodeo, 2": lambda: Rodeo(2, width=4),
    "rodeo, 3": lambda: Rodeo(3, width=4),
}


def shaken(make, problem):
    """An estimator whose learned parts are far from where they start, in double precision."""
    estimator = make()
    c.runner(estimator, problem)(1)
    estimator.double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in estimator.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return estimator


def gradient(estimator, problem, seed=1, lead=200):
    torch.manual_seed(seed)
    logits, parameters = problem.leaves(lead)
    cost = estimator(logits, problem.objective(parameters))
    return torch.autograd.grad(cost.sum(), logits)[0]


@pytest.mark.parametrize("problem", [ONE, TWO], ids=["K=1", "K=2"])
@pytest.mark.parametrize("name", MAKE)
def test_unbiased_whatever_was_learned(name, problem):
    if (name, problem) == ("rodeo, 3", TWO) or (name, problem) == ("double_cv, 3", TWO):
        problem = c.SmallProblem(2, 2)  # 9 ** 3 outcomes are no trouble, but 3 ** 6 of them twice over are slow
    c.check_expectation(shaken(MAKE[name], problem), problem)


@pytest.mark.parametrize("name", MAKE)
def test_gradient_sums_to_zero_over_categories(name):
    assert gradient(shaken(MAKE[name], TWO), TWO).sum(-1).abs().max() < 1e-10


@pytest.mark.parametrize("name", MAKE)
def test_learned_parts_follow_the_gradient_of_its_own_square(name):
    """What the backward pass gives them is the derivative of the mean square, by differences at the same draws."""
    estimator = shaken(MAKE[name], TWO)

    def square():
        return float(gradient(estimator.eval(), TWO, lead=50).square().sum((-2, -1)).mean())

    estimator.train()
    torch.manual_seed(1)
    logits, parameters = TWO.leaves(50)
    estimator(logits, TWO.objective(parameters)).mean().backward()
    learned = list(estimator.parameters())
    assert learned
    for p in learned:
        flat, found = p.data.view(-1), p.grad.view(-1)
        for i in range(min(3, len(flat))):
            kept, step = flat[i].item(), 1e-6
            flat[i] = kept + step
            above = square()
            flat[i] = kept - step
            below = square()
            flat[i] = kept
            assert found[i].item() == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", in_part(["rebar", "relax", "double_cv, 2"], 3))
def test_training_lowers_the_variance(name):
    estimator = MAKE[name]()
    before = gradient(estimator.eval(), TWO, lead=5000).var(0).sum()
    optimizer = torch.optim.Adam(estimator.train().parameters(), lr=0.02)
    for step in range(300):
        torch.manual_seed(100 + step)
        logits, parameters = TWO.leaves(20)
        optimizer.zero_grad()
        estimator(logits, TWO.objective(parameters)).mean().backward()
        optimizer.step()
    after = gradient(estimator.eval(), TWO, lead=5000).var(0).sum()
    assert after < 0.95 * before, f"variance went from {before:.3f} to {after:.3f}"


@pytest.mark.parametrize("make", [DoubleCV, Rodeo])
@pytest.mark.parametrize("samples", [2, 3])
def test_before_training_they_are_leave_one_out(make, samples):
    ours = gradient(make(samples), TWO)
    assert torch.allclose(ours, gradient(Reinforce(samples, "leave_one_out"), TWO))


# ---------------------------------------------------------------- REBAR and RELAX


def test_without_its_control_variate_rebar_is_reinforce():
    torch.manual_seed(1)
    logits, parameters = TWO.leaves(100)
    f = TWO.objective(parameters)
    (ours,) = torch.autograd.grad(Rebar(scale=0.0, learned=False)(logits, f).sum(), logits)
    torch.manual_seed(1)
    z = sampling.one_hot((logits.log_softmax(-1) + sampling.gumbel(logits, 1)).argmax(-1), logits)
    expected = f(z)[0][..., None, None] * (z[0] - logits.softmax(-1))
    assert torch.allclose(ours, expected)


def test_a_scale_of_0_stays_and_leaves_the_network_alone():
    estimator = Relax(scale=0.0, width=2)
    run = c.runner(estimator, TWO)
    run(1)
    optimizer = torch.optim.SGD([p for p in estimator.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        logits, parameters = TWO.leaves(100)
        estimator(logits, TWO.objective(parameters)).sum().backward()
        optimizer.step()
    assert estimator.scale == 0
    assert estimator.network[-1].bias != 0


def test_a_constant_control_variate_is_a_constant_baseline():
    estimator = Relax(scale=0.0, width=2)
    c.runner(estimator, TWO)(1)
    with torch.no_grad():
        for p in estimator.network.parameters():
            p.zero_()
        estimator.network[-1].bias.fill_(3.0)
    plain = Rebar(scale=0.0)
    torch.manual_seed(1)
    logits, parameters = TWO.leaves(100)
    f = TWO.objective(parameters)
    (expected,) = torch.autograd.grad(plain(logits, lambda z: f(z) - 3).sum(), logits)
    torch.manual_seed(1)
    (ours,) = torch.autograd.grad(estimator(logits, f).sum(), logits)
    assert torch.allclose(ours, expected)


def test_the_conditional_noise_is_shared_exponential_clocks():
    """Given the draw b: the clock of b and, less it, those of the others are independent Exp(1), whatever b is."""
    torch.manual_seed(0)
    log_p = torch.tensor([[0.5, -1.0, 1.0, 0.0]], dtype=torch.float64).log_softmax(-1)
    draws = 200_000
    z = log_p + sampling.gumbel(log_p, draws)
    b = z.argmax(-1)
    arrival = (-z).exp().squeeze(1)
    first = arrival.gather(-1, b)
    waits = (arrival - first) * log_p.exp()
    for category in range(4):
        chosen = (b == category).squeeze(-1)
        clocks = waits[chosen]
        clocks[:, category] = first[chosen, 0]
        error = len(clocks) ** -0.5
        covariance = clocks.T.cov()
        assert (clocks.mean(0) - 1).abs().max() < 4.5 * error
        assert (covariance.diagonal() - 1).abs().max() < 4.5 * 8**0.5 * error, "fourth moment of Exp(1) is 9"
        assert (covariance - covariance.diagonal().diag()).abs().max() < 4.5 * error


@pytest.mark.parametrize("problem", [ONE, TWO], ids=["K=1", "K=2"])
def test_rebar_by_definition_is_certified_too(problem):
    c.check_expectation(ByDefinition(shared=True), problem)


def test_one_relaxation_has_no_more_variance_than_two():
    ours = gradient(Rebar(0.7, learned=False), TWO, lead=50_000).var(0).sum()
    published = gradient(ByDefinition(shared=True), TWO, lead=50_000).var(0).sum()
    assert ours < published


class NoDerivativeGivenTheDraw(Rebar):
    """Puts back the whole derivative of the relaxation, as if it did not depend on the logits given the draw."""

    def gradient(self, cost, objective, log_p, z, hard, dtype, train):
        flat = z - z.amax(-1, keepdim=True)
        found = super().gradient(cost, objective, log_p, z, hard, dtype, train)
        y = (z / self.log_temperature.exp()).softmax(-1).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.control(y, objective, dtype).sum(), y)
        lost = y * (slope - (slope * y).sum(-1, keepdim=True)) / self.log_temperature.exp() * (1 - flat.exp())
        return found + lost - log_p.exp() * lost.sum(-1, keepdim=True)


class TemperatureTwice(Rebar):
    """Divides by the temperature once more."""

    def gradient(self, cost, objective, log_p, z, hard, dtype, train):
        found = super().gradient(cost, objective, log_p, z, hard, dtype, train)
        control = self.control((z / self.log_temperature.exp()).softmax(-1), objective, dtype)
        score = (cost - control)[..., None, None] * (hard - log_p.exp())
        return score + (found - score) / self.log_temperature.exp()


class ControlNotPutBack(Rebar):
    """Leaves out the control variate's own gradient."""

    def gradient(self, cost, objective, log_p, z, hard, dtype, train):
        control = self.control((z / self.log_temperature.exp()).softmax(-1), objective, dtype)
        return (cost - control)[..., None, None] * (hard - log_p.exp())


class Claimed(RelaxAsReleased):
    """Says of itself what its authors did."""

    unbiased = True


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ByDefinition(shared=False),
        lambda: Claimed(0.7),
        lambda: NoDerivativeGivenTheDraw(0.7, learned=False),
        lambda: TemperatureTwice(0.7, learned=False),
        lambda: ControlNotPutBack(0.7, learned=False),
    ],
    ids=["v_i for v_b", "released", "no derivative given the draw", "temperature twice", "control not put back"],
)
def test_wrong_control_variates_are_rejected(wrong):
    with pytest.raises(AssertionError, match="standard errors"):
        c.check_expectation(wrong(), ONE)


class RelaxByDefinition(Claimed):
    """The released estimator, the mistake put right: what its experiment says the difference is."""

    def gradient(self, *arguments):
        import hardmax.estimators.released as released

        released.given = lambda hard, log_p, clock, shared: given(hard, log_p, clock, True)
        try:
            return super().gradient(*arguments)
        finally:
            released.given = given


def test_the_conditional_noise_is_all_that_is_wrong_with_the_released_one():
    c.check_expectation(RelaxByDefinition(0.7), ONE)


# ---------------------------------------------------------------- double control variates


def test_double_control_variates_are_the_formula():
    estimator = DoubleCV(3)
    with torch.no_grad():
        estimator.alpha.fill_(-0.6)
    torch.manual_seed(3)
    logits = TWO.logits.clone().requires_grad_()
    f = TWO.objective(TWO.parameters)
    (ours,) = torch.autograd.grad(estimator(logits, f), logits)
    torch.manual_seed(3)
    z = sampling.draw(logits, 3).requires_grad_()
    cost = f(z)
    (g,) = torch.autograd.grad(cost.sum(), z)
    p, alpha, z, S = logits.detach().softmax(-1), -0.6, z.detach(), 3
    rest = lambda x, k: sum(x[j] for j in range(S) if j != k) / (S - 1)
    b = [alpha * (rest(g, k) * (z[k] - p)).sum() for k in range(S)]
    expected = -alpha * sum(p * (g[k] - (p * g[k]).sum(-1, keepdim=True)) for k in range(S)) / S
    for k in range(S):
        expected += (cost[k] + b[k] - rest(cost + torch.stack(b), k)) * (z[k] - p) / S
    assert torch.allclose(ours, expected.detach())


def test_a_negative_coefficient_lowers_the_variance():
    def variance(alpha):
        estimator = DoubleCV(2)
        with torch.no_grad():
            estimator.alpha.fill_(alpha)
        return gradient(estimator, c.SmallProblem(2, 3, linear=True), lead=20_000).var(0).sum()

    assert variance(-0.5) < variance(0.0) < variance(0.5)


class OwnSlope(DoubleCV):
    """Linearises a cost at its own draw."""

    def estimate(self, logits, objective, context):
        import hardmax.estimators.double_cv as module

        before = module.others
        module.others = lambda x: x if x.ndim > 3 else before(x)
        try:
            return super().estimate(logits, objective, context)
        finally:
            module.others = before


def test_a_linearisation_at_its_own_draw_is_rejected():
    wrong = OwnSlope(2)
    nn.init.constant_(wrong.alpha, -0.5)
    with pytest.raises(AssertionError, match="gradient is off"):
        c.check_expectation(wrong, TWO)


# ---------------------------------------------------------------- Stein operators


def stein(h, z, p):
    """The Gibbs operator applied to h at one configuration z ``[K, C]``, by its definition."""
    K, C = z.shape
    total = 0
    for i in range(K):
        for category in range(C):
            neighbour = z.clone()
            neighbour[i] = nn.functional.one_hot(torch.tensor(category), C)
            total = total + p[i, category] * h(neighbour)
        total = total - h(z)
    return total / K


@pytest.mark.parametrize("samples", [2, 3])
def test_rodeo_is_the_formula(samples):
    estimator = shaken(lambda: Rodeo(samples, width=4), TWO)
    torch.manual_seed(3)
    logits = TWO.logits.clone().requires_grad_()
    f = TWO.objective(TWO.parameters)
    (ours,) = torch.autograd.grad(estimator(logits, f), logits)
    torch.manual_seed(3)
    z = sampling.draw(logits, samples).requires_grad_()
    cost = f(z)
    (g,) = torch.autograd.grad(cost.sum(), z)
    p, z, cost = logits.detach().softmax(-1), z.detach(), cost.detach()
    rest = lambda x, k: sum(x[j] for j in range(samples) if j != k) / (samples - 1)

    def network(k, y):
        inner = (rest(g, k) * y).sum() - rest((g * z).sum((-2, -1)), k)
        return estimator.network(torch.stack([rest(cost, k), inner]))

    with torch.no_grad():
        corrected = [cost[j] + estimator.beta * stein(lambda y, j=j: network(j, y)[0], z[j], p) for j in range(samples)]
        expected = 0
        for k in range(samples):
            along = stein(lambda y, k=k: network(k, y)[1] * (y - p), z[k], p)
            expected = expected + ((cost[k] - rest(corrected, k)) * (z[k] - p) + estimator.gamma * along) / samples
    assert torch.allclose(ours, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rebar(temperature=0), "temperature must be a number above 0, got 0"),
        (lambda: Rebar(learned=2), "learned must be one of True, False, got 2"),
        (lambda: Relax(width=0), "width must be an integer of at least 1, got 0"),
        (lambda: DoubleCV(1), "samples must be an integer of at least 2, got 1"),
        (lambda: Rodeo(samples=1), "samples must be an integer of at least 2, got 1"),
        (lambda: Rodeo(width=0.5), "width must be an integer of at least 1, got 0.5"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
