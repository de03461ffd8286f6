"""Objectives that an estimator cannot use, or not as it uses others: each works exactly, or is refused in one line."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax import certification as c
from hardmax.estimators import (
    ARSM,
    NVIL,
    DirectOptimisation,
    DoubleCV,
    Exact,
    GumbelSoftmax,
    LocalExpectation,
    MuProp,
    RandomLocalExpectation,
    Rebar,
    Reinforce,
    Relax,
    Rodeo,
    Softmax,
    StochasticStraightThrough,
    StraightThrough,
    sampling,
)
from hardmax.estimators.base import Estimator
from hardmax.estimators.objectives import check_objective, depends_on
from hardmax.paths import CONFIGS

NAMES = sorted(path.stem for path in (CONFIGS / "estimator").glob("*.yaml"))
VALUES = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
WITHOUT_DERIVATIVE = {
    "of an argmax": lambda z, w: VALUES[z.argmax(-1)].sum(-1),
    "parameters at an argmax": lambda z, w: w[z.argmax(-1)].sum(-1),
    "detached": lambda z, w: (z.detach() @ w).sum(-1) ** 2,
    "constant": lambda z, w: torch.full(z.shape[:-2], 7.0, dtype=z.dtype),
    "a parameter": lambda z, w: w.sum().expand(z.shape[:-2]),
}


def make(name):
    return instantiate(OmegaConf.load(CONFIGS / "estimator" / f"{name}.yaml"))


def needs_a_derivative(estimator):
    return estimator.differentiates_objective and not estimator.unbiased


class Step(c.SmallProblem):
    """Its cost is one of draws alone: of the most probable category of z, without a derivative."""

    def objective(self, parameters):
        cost = super().objective(parameters)
        return lambda z: cost(torch.nn.functional.one_hot(z.argmax(-1), self.C).double())


def refusal(estimator):
    return pytest.raises(
        ValueError, match=f"^objective has no derivative at z, which {type(estimator).__name__} needs.*$"
    )


@pytest.mark.parametrize("log_q", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if make(name).differentiates_objective])
def test_without_a_derivative_an_estimator_is_exact_or_refuses(name, log_q):
    estimator, problem = make(name), Step(2, 2)
    if needs_a_derivative(estimator):
        with refusal(estimator):
            c.runner(estimator, problem, log_q)(1)
    else:
        c.check_expectation(estimator, problem, log_q)


@pytest.mark.parametrize("kind", WITHOUT_DERIVATIVE)
@pytest.mark.parametrize("name", NAMES)
def test_no_kind_of_objective_ends_in_an_error_of_pytorch(name, kind):
    for log_q in (False, True):
        estimator, logits = make(name), torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
        w = VALUES.clone().requires_grad_()
        with refusal(estimator) if needs_a_derivative(estimator) else contextlib.nullcontext():
            estimator(logits, lambda z, w=w: WITHOUT_DERIVATIVE[kind](z, w), log_q=log_q).mean().backward()
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize("make", [Softmax, StraightThrough, lambda: make("zgr"), lambda: make("imle")])
def test_the_value_alone_needs_no_derivative(make):
    objective = lambda z: VALUES[z.argmax(-1)].sum(-1)
    logits = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert make()(logits.detach(), objective).isfinite().all()
    with torch.no_grad():
        assert make()(logits, objective).isfinite().all()


def test_a_learned_control_variate_goes_on_learning_without_the_objective_s_part():
    estimator, problem = make("relax"), Step(2, 2)
    logits, parameters = problem.leaves(20)
    estimator(logits, problem.objective(parameters)).mean().backward()
    assert estimator.network[-1].weight.grad.abs().max() > 0


def test_the_relaxed_kl_needs_the_objective_s_derivative_too():
    logits = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="no derivative at z, which GumbelSoftmax needs"):
        GumbelSoftmax(relaxed_kl=True)(logits, lambda z: VALUES[z.argmax(-1)].sum(-1), log_q=True)


def test_whether_a_backward_pass_comes_to_a_tensor():
    x, w = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    y = 2 * x
    assert depends_on(x, x)
    assert depends_on((y * w).sum(), x)
    assert depends_on((y * w).sum(), y)
    assert depends_on((y * w).sum(), w)
    assert not depends_on((x * w).sum(), y)
    assert not depends_on((y.detach() * w).sum(), x)
    assert not depends_on(y.detach(), x)
    assert not depends_on(y, torch.ones(3))


# ---------------------------------------------------------------- what an objective returns


@pytest.mark.parametrize(
    ("cost", "found"),
    [
        (lambda z: z.argmax(-1).sum(-1), "torch.int64"),
        (lambda z: z[..., 0].sum(-1) > 0, "torch.bool"),
        (lambda z: 3.0, "float"),
        (lambda z: None, "NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["reinforce", "softmax", "arsm", "exact", "rebar"])
def test_costs_that_are_no_floating_point_tensor_are_refused(name, cost, found):
    with pytest.raises(TypeError, match=f"must return a floating-point tensor of costs, got {found}"):
        make(name)(torch.zeros(2, 3, 4, requires_grad=True), cost)


@pytest.mark.parametrize("name", NAMES)
def test_logits_without_k_are_told_from_the_costs(name):
    """[B, C] is legal as [K, C], so that nothing but one cost for each example says what was meant."""
    if name in ("exact", "local_expectation"):
        pytest.skip("evaluates more draws than it returns costs, with the same check")
    with pytest.raises(ValueError, match=r"missing: logits.unsqueeze\(-2\) gives it"):
        make(name)(torch.zeros(5, 3, requires_grad=True), lambda z: (z @ torch.arange(3.0)) ** 2)


def test_logits_without_k_are_told_elsewhere_too():
    objective, hint = lambda z: z[..., 0].sum(-1), r"missing: logits.unsqueeze\(-2\) gives it"
    with pytest.raises(ValueError, match=rf"\[\*batch, K, C\].*got \[3\]; .*{hint}"):
        Reinforce()(torch.zeros(3), objective)
    with pytest.raises(ValueError, match=rf"context must be .*{hint}"):
        NVIL()(torch.zeros(5, 3), objective, torch.zeros(5, 7))
    with pytest.raises(ValueError, match=rf"baseline=batch needs at least 2 examples .*{hint}"):
        Reinforce(baseline="batch")(torch.zeros(5, 3), objective)
    assert Reinforce()(torch.zeros(5, 3), objective).shape == (), "[K, C] is legal"


# ---------------------------------------------------------------- closing over the logits


def encoded():
    encoder = torch.nn.Linear(4, 6)
    return encoder(torch.ones(5, 4)).unflatten(-1, (2, 3)), encoder


@pytest.mark.parametrize(
    "cost",
    [
        lambda z, logits: (z * logits).sum((-2, -1)),
        lambda z, logits: -(z * logits.softmax(-1).log()).sum((-2, -1)),
        lambda z, logits: z[..., 0].sum(-1) + logits.logsumexp(-1).sum(-1),
        lambda z, logits: Reinforce().eval()(logits * z[0], lambda y: y[..., 0].sum(-1)).unsqueeze(0),
    ],
    ids=["logits", "log q", "beside z", "nested"],
)
def test_an_objective_that_closes_over_the_logits_is_found(cost):
    for logits in (torch.randn(5, 2, 3, requires_grad=True), encoded()[0]):
        with pytest.raises(ValueError, match="objective closes over the logits"):
            check_objective(logits, lambda z, logits=logits: cost(z, logits))


def test_other_objectives_are_not():
    logits, encoder = encoded()
    w, inner = torch.randn(2, 3, requires_grad=True), Reinforce().eval()
    for cost in (
        lambda z: (z * w).sum((-2, -1)),
        lambda z: (z * logits.detach()).sum((-2, -1)),
        lambda z: (z.flatten(-2) @ encoder.weight).sum(-1),  # features and parameters may be shared
        lambda z: inner(w * z, lambda y: y[..., 0].sum(-1)),
        lambda z: torch.ones(z.shape[:-2]),
    ):
        check_objective(logits, cost)
        check_objective(torch.randn(5, 2, 3), cost)


def test_looking_for_logits_in_an_objective_draws_nothing():
    logits, seen = torch.zeros(5, 2, 3, requires_grad=True), []
    before = torch.get_rng_state()
    with torch.no_grad():
        check_objective(logits, lambda z: (seen.append(z), torch.rand(z.shape[:-2]))[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert {(tuple(z.shape), z.requires_grad) for z in seen} == {((S, 5, 2, 3), False) for S in (1, 2)}


def normalised(z):
    x = torch.nn.functional.batch_norm(z.flatten(-2).flatten(0, 1), None, None, training=True)
    return (x * torch.arange(6)).sum(-1).unflatten(0, z.shape[:2])


def alone(z):
    return z[..., 0].sum(-1) + 2 * z[..., 2].sum(-1)


def next_one(z):
    return torch.cat([alone(z)[:, :-1] + alone(z)[:, 1:], alone(z)[:, -1:]], 1)


def pairs(z):
    return alone(z) + torch.nn.functional.pad(alone(z)[:, :4].unflatten(1, (2, 2)).flip(2).flatten(1, 2), (0, 1))


COUPLED = {
    "a term of the batch": lambda z: alone(z) + 0.01 * alone(z).mean(1, keepdim=True),
    "a small one": lambda z: 1e-6 * (alone(z) + alone(z).mean(1, keepdim=True)),
    "one variable": lambda z: alone(z) + z[..., 1, 0].mean(1, keepdim=True),
    "BatchNorm": normalised,
    "the next": next_one,
    "the one before": lambda z: next_one(z.flip(1)).flip(1),
    "pairs": pairs,
    "a mean over draws": lambda z: alone(z) - alone(z).mean(0),
}


@pytest.mark.parametrize("cost", COUPLED.values(), ids=COUPLED.keys())
@pytest.mark.parametrize("seed", range(3))
def test_an_objective_that_couples_examples_is_found(cost, seed):
    torch.manual_seed(seed)
    logits = torch.randn(5, 2, 3).index_fill(-1, torch.tensor([1]), -torch.inf).requires_grad_()
    with pytest.raises(ValueError, match="depend on the z of another"):
        check_objective(logits, cost)


def test_draws_are_told_apart_where_there_is_one_example():
    with pytest.raises(ValueError, match="of one draw or example depend on the z of another"):
        check_objective(torch.randn(2, 3), lambda z: alone(z) - alone(z).mean(0))


def test_examples_are_told_apart_in_any_number_of_dimensions():
    with pytest.raises(ValueError, match="depend on the z of another"):
        check_objective(torch.randn(2, 4, 2, 3), lambda z: alone(z) + 0.01 * alone(z).mean((1, 2), keepdim=True))
    check_objective(torch.randn(2, 4, 2, 3), alone)


def rare(seed):
    own = np.random.default_rng(seed)
    return lambda z: alone(z) + torch.from_numpy(own.random(z.shape[:-2]) < 0.1)


def of_hits(_):
    """What is drawn depends on z: of other examples' noise as well."""

    def cost(z):
        hit, r = z[..., 0].sum(-1) > 0, alone(z)
        r[hit] = (torch.rand(int(hit.sum())) < 0.2).float()
        return r

    return cost


def counted(every):
    calls = []
    return lambda z: (calls.append(z), alone(z) * (1 + (len(calls) - 1) // (every % 4 + 1)))[1]


def centred(_):
    mean = [0.0]

    def cost(z):
        mean[0] = 0.9 * mean[0] + 0.1 * float(alone(z).mean())
        return alone(z) - mean[0]

    return cost


@pytest.mark.parametrize("make", [rare, of_hits, counted, centred])
def test_costs_that_are_random_or_move_are_not_taken_for_coupled(make):
    for seed in range(40):
        torch.manual_seed(seed)
        check_objective(torch.randn(4, 3, 5, requires_grad=True), make(seed))


def test_examples_by_themselves_are_passed():
    """Costs that are random, that refuse what is impossible, and a single example."""
    w = torch.randn(2, 3)

    def strict(z):
        assert not z[..., 1].any()
        return (z * w).sum((-2, -1))

    logits = torch.randn(6, 2, 3).index_fill(-1, torch.tensor([1]), -torch.inf)
    check_objective(logits, strict)
    check_objective(torch.randn(6, 2, 3), lambda z: (z * w).sum((-2, -1)) + torch.rand(z.shape[:-2]))
    check_objective(torch.randn(2, 3), lambda z: (z * w).sum((-2, -1)))
    check_objective(torch.randn(6, 2, 1), lambda z: z.sum((-2, -1)))


WEIGHTS = torch.tensor([1.0, 2.0, 6.0])


def doubles_z(z):
    z *= 2
    return (z * WEIGHTS).sum((-2, -1)).square()


def overwrites_z(z):
    cost = (2 * z.detach() * WEIGHTS).sum((-2, -1)).square()
    z.detach().numpy()[:] = 7.0  # of which PyTorch knows nothing
    return cost


@pytest.mark.parametrize("objective", [doubles_z, overwrites_z])
@pytest.mark.parametrize("estimator", [Reinforce(samples=4, baseline="leave_one_out"), MuProp(), ARSM()])
def test_an_objective_may_change_its_z(estimator, objective):
    attached = objective is doubles_z
    unchanging = lambda z: (2 * (z if attached else z.detach()) * WEIGHTS).sum((-2, -1)).square()
    found = []
    for each in (objective, unchanging):
        torch.manual_seed(0)
        logits = torch.zeros(5, 2, 3, requires_grad=True)
        check_objective(logits, each)
        estimator(logits, each).sum().backward()
        found.append(logits.grad)
    assert torch.equal(*found)


@pytest.mark.parametrize("estimator", [ARSM(), NVIL(), Softmax()])
def test_arguments_in_the_wrong_order_are_named(estimator):
    logits, objective = torch.zeros(5, 2, 3), lambda z: z[..., 0].sum(-1)
    with pytest.raises(TypeError, match=r"logits must be a tensor \[\*batch, K, C\], got function"):
        estimator(objective, logits)
    with pytest.raises(TypeError, match=r"objective must be a function of z, .*, got None"):
        estimator(logits, None)


class Illegal(Exception):
    pass


@pytest.mark.parametrize("estimator", [Exact(), LocalExpectation(), RandomLocalExpectation(2), DirectOptimisation()])
def test_what_is_impossible_is_not_evaluated(estimator):
    """A simulator may refuse it, and an infinite cost would make the gradient of its parameters NaN."""
    logits = torch.randn(4, 2, 3).index_fill(-1, torch.tensor([1]), -torch.inf).requires_grad_()
    w = torch.randn(3, requires_grad=True)

    def objective(z):
        if z[..., 1].any():
            raise Illegal
        return -(z * w.sigmoid() * torch.tensor([1.0, 0.0, 2.0])).sum(-1).log().sum(-1)

    estimator(logits, objective).sum().backward()
    assert logits.grad.isfinite().all()
    assert w.grad.isfinite().all()


def test_enumeration_is_traced_and_mapped_where_something_is_impossible():
    logits, w = torch.randn(4, 2, 3).index_fill(-1, torch.tensor([1]), -torch.inf), torch.randn(3, requires_grad=True)

    def cost(x):
        return Exact()(x, lambda z: -(z * w.sigmoid() * torch.tensor([1.0, 0.0, 2.0])).sum(-1).log().sum(-1))

    right = torch.autograd.grad(cost(logits).sum(), w)[0]
    compiled = torch.compile(cost, fullgraph=True, backend="eager")
    assert torch.allclose(torch.autograd.grad(compiled(logits).sum(), w)[0], right)
    assert torch.allclose(torch.vmap(cost)(logits), cost(logits))
    assert Exact()(logits.to("meta"), lambda z: z.sum((-2, -1))).shape == (4,)


@pytest.mark.parametrize("make", [Rebar, Relax, DoubleCV, Rodeo, NVIL])
def test_what_is_learned_does_not_depend_on_the_sign_of_the_cost(make):
    """A reward is maximised as the negative of its estimate, and a loss may be scaled, as in mixed precision."""
    logits, w, found = torch.randn(5, 2, 3, requires_grad=True), torch.randn(2, 3), []
    objective, context = lambda z: (z * w).sum((-2, -1)).square(), torch.randn(5, 4)
    torch.manual_seed(0)
    estimator = make()
    estimator(logits, objective, context)
    for scale in (1.0, -1.0, 64.0):
        estimator.zero_grad()
        torch.manual_seed(1)
        (scale * estimator(logits, objective, context)).mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in estimator.parameters()]))
    assert found[0].abs().max() > 0
    assert torch.equal(found[0], found[1])
    assert torch.allclose(64 * found[0], found[2])
    estimator.zero_grad()
    torch.manual_seed(1)
    (torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]) * estimator(logits, objective, context)).mean().backward()
    assert torch.allclose(found[0], torch.cat([p.grad.flatten() for p in estimator.parameters()]), atol=1e-6)


# ---------------------------------------------------------------- what an estimator's author forgets


@pytest.mark.parametrize(
    ("declared", "error", "message"),
    [
        ({}, TypeError, "Forgetful must declare target and unbiased and differentiates_objective"),
        ({"target": "mode", "unbiased": False}, TypeError, "Forgetful must declare differentiates_objective"),
        ({"target": "mean", "unbiased": True, "differentiates_objective": False}, ValueError, "target must be one of"),
        ({"target": "mode", "unbiased": 0, "differentiates_objective": False}, TypeError, "unbiased must be one of"),
        ({"target": "mode", "unbiased": True, "differentiates_objective": None}, TypeError, "differentiates_objective"),
    ],
)
def test_a_class_that_does_not_say_what_it_estimates_is_refused_at_once(declared, error, message):
    with pytest.raises(error, match=message):
        type("Forgetful", (Estimator,), declared)


def test_options_may_decide_what_is_estimated():
    assert (StraightThrough().target, StochasticStraightThrough().target) == ("mode", "expectation")
    assert copy.deepcopy(StochasticStraightThrough()).target == "expectation"


def test_a_cost_of_another_shape_than_the_batch_is_refused():
    class WithDraws(Estimator):
        target, unbiased, differentiates_objective = "expectation", True, False

        def estimate(self, logits, objective, context):
            return objective(sampling.draw(logits, 1))

    with pytest.raises(ValueError, match=r"WithDraws.estimate must return \[2\], .* got shape \[1, 2\]"):
        WithDraws()(torch.zeros(2, 3, 4, requires_grad=True), lambda z: z[..., 0].sum(-1))
