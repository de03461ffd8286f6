"""The conformance suite: every YAML under configs/estimator, held to what its class says."""

import copy
import itertools

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax import certification as c
from hardmax.certification.certificate import calls
from hardmax.estimators import Exact, Rebar, Reinforce
from helpers.cases import CASES, FOLDER, build, in_part


@pytest.fixture
def estimator(request):
    return build(request.param)


def every_estimator(test):
    return pytest.mark.parametrize("estimator", CASES, indirect=True)(test)


def every_other_estimator(test):
    """And all of them in the long tests."""
    return pytest.mark.parametrize("estimator", in_part(CASES, 3), indirect=True)(test)


ON_PROBLEMS = [
    pytest.param(*case.values, problem, id=f"{case.id}-K={problem.K},C={problem.C}")
    for case, problem in itertools.product(CASES, c.PROBLEMS)
]


@pytest.mark.parametrize(("estimator", "problem"), in_part(ON_PROBLEMS, 3), indirect=["estimator"])
def test_value_and_gradients(estimator, problem):
    c.check_expectation(estimator, c.fitting(estimator, problem))


@every_other_estimator
def test_sampled_kl(estimator):
    c.check_expectation(estimator, c.fitting(estimator, c.SMALL), log_q=True)


# At the defaults of ovis_mc four examples have a million outcomes; ``make certificates`` goes through them.
@pytest.mark.parametrize("estimator", in_part((case for case in CASES if case.id != "ovis_mc"), 20), indirect=True)
def test_any_number_of_leading_dimensions(estimator):
    c.check_leading_dimensions(copy.deepcopy(estimator))  # learned parts take their sizes from the first logits
    c.check_independent_draws(estimator, c.fitting(estimator, c.SMALL))


@every_estimator
def test_one_evaluation_without_gradients(estimator):
    c.check_without_gradients(estimator, c.fitting(estimator, c.SMALL))


@every_estimator
@pytest.mark.parametrize("problem", [c.SmallProblem(1, 5), c.SmallProblem(2, 3)], ids=lambda p: f"K={p.K},C={p.C}")
def test_evaluations_are_the_stated_ones(estimator, problem):
    c.check_evaluations(estimator, c.fitting(estimator, problem))


@every_other_estimator
def test_nested_in_its_own_objective(estimator):
    if c.fitting(estimator, c.SMALL).batch:
        pytest.skip("a baseline over examples needs examples: the nested problem has none")
    c.check_nested(estimator, copy.deepcopy(estimator))


@every_estimator
def test_a_call_moves_no_state(estimator):
    c.check_state(estimator, c.fitting(estimator, c.SMALL))


@every_other_estimator
def test_extreme_logits_stay_finite(estimator):
    for logits, precision in itertools.product(c.EXTREME, c.PRECISIONS):
        torch.manual_seed(0)
        c.check_extreme_logits(copy.deepcopy(estimator), logits, precision)


@every_estimator
def test_smallest_problems(estimator):
    for K, C in [(1, 1), (3, 1), (1, 2)]:
        torch.manual_seed(0)
        c.check_smallest_problem(copy.deepcopy(estimator), K, C)


@every_other_estimator
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_mean_gradients_are_those_of_float64(estimator, precision):
    c.check_precision(estimator, c.fitting(estimator, c.SMALL), precision)


IN_USE = {"the same after steps of training", "weights of costs, and penalties", "a context", "logits of other calls"}
IN_USE |= {"values of the objective alone", "the same with more categories, variables, a rare category"}


@pytest.mark.parametrize("estimator", in_part(CASES, 8), indirect=True)
def test_in_training_it_is_what_it_is_by_itself(estimator):
    for claim, tried in calls(estimator).items():
        for call in tried if claim in IN_USE else ():
            assert not call.message(estimator), claim


@every_estimator
def test_bad_shapes_are_refused_before_the_objective(estimator):
    def objective(z):
        raise AssertionError("the objective was evaluated")

    for shape in [(3,), (2, 0, 3), (2, 3, 0), (0, 2, 3)]:
        with pytest.raises(ValueError, match="logits must be"):
            estimator(torch.zeros(shape), objective)
    with pytest.raises(TypeError, match="floating point"):
        estimator(torch.zeros(2, 3, 4, dtype=torch.long), objective)


def test_an_objective_of_the_wrong_shape_is_refused():
    for name in ("reinforce", "softmax", "arsm", "exact"):
        estimator = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"))
        with pytest.raises(ValueError, match="one cost per draw and example"):
            estimator(torch.zeros(2, 3, 4, requires_grad=True), lambda z: z.sum(-1))


@pytest.mark.parametrize("name", ["exact", "local_expectation", "random_local_expectation", "sum_and_sample"])
def test_low_precision_and_high_costs_do_not_make_a_bias(name):
    """Probabilities in bfloat16 do not add up to 1, and a cost of 1,000 would weigh in with that."""
    generator = torch.Generator().manual_seed(0)
    low, weights = torch.randn(2, 3, generator=generator).bfloat16(), torch.tensor([0.0, 1.0, 3.0])
    wide = lambda x: x if x.dtype == torch.float64 else x.float()
    objective = lambda z: 1000 + (wide(z) @ weights.to(wide(z).dtype)).sum(-1) ** 2
    exact = low.double().requires_grad_()
    value = Exact()(exact, objective)
    (truth,) = torch.autograd.grad(value, exact)
    estimator = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"))
    torch.manual_seed(0)
    leaf = low.expand(20_000, 2, 3).clone().requires_grad_()
    cost = estimator(leaf, objective)
    (g,) = torch.autograd.grad(cost.sum(), leaf)
    error = g.double().std(0).square().sum().sqrt() / 20_000**0.5
    assert (g.double().mean(0) - truth).norm() < 4 * error + 0.004 * truth.norm(), "a last digit of bfloat16"
    if name == "exact":
        assert (cost.dtype, cost[0].item()) == (torch.float32, pytest.approx(value.item(), rel=1e-6))


def test_the_cost_has_the_precision_of_the_objective_and_float32_at_least():
    of_costs = {torch.bfloat16: torch.float32, torch.float32: torch.float32, torch.float64: torch.float64}
    for path in FOLDER.glob("*.yaml"):
        estimator = instantiate(OmegaConf.load(path))
        for given, due in of_costs.items():
            logits = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
            assert estimator(logits, lambda z, to=given: z.to(to).square().sum((-2, -1))).dtype == due, path.stem


def cases_where(holds):
    """Those estimators of which something holds."""
    return pytest.mark.parametrize("estimator", [x for x in CASES if holds(build(*x.values))], indirect=True)


# But for those that take the derivative of costs of relaxed points, whose rounding has none.
@cases_where(lambda e: e.unbiased and e.target == "expectation" and not isinstance(e, Rebar))
def test_costs_of_half_precision_make_no_bias(estimator):
    """256, 258 and 262 are numbers of bfloat16; their sums and means are not, and rounded ones depend on the draw."""
    costs = torch.tensor([256.0, 258.0, 262.0])
    objective = lambda z: (z.float() @ costs).squeeze(-1).bfloat16()
    torch.manual_seed(0)
    leaf = torch.zeros(20_000, 1, 3, requires_grad=True)
    estimator = copy.deepcopy(estimator).eval()
    estimator(leaf, objective).sum().backward()
    error = leaf.grad.std(0) / 20_000**0.5
    assert ((leaf.grad.mean(0) - (costs - costs.mean()) / 3).abs() < 4.5 * error + 1e-4).all()


@cases_where(lambda e: e.unbiased or not e.differentiates_objective)
def test_an_objective_may_write_its_costs_into_the_same_tensor(estimator):
    """And change its copy of z through NumPy, of which PyTorch knows nothing."""
    weight, kept = torch.tensor([[1.0, 2.0, 6.0]]), {}

    def fresh(z):
        return (z.detach() * weight).sum((-2, -1))

    def reusing(z):
        cost = kept.setdefault(z.shape, torch.empty(z.shape[:-2])).copy_(fresh(z))
        z.detach().numpy()[:] = 7.0
        return cost

    found = []
    for objective in (fresh, reusing):
        torch.manual_seed(0)
        leaf = torch.zeros(50, 1, 3, requires_grad=True)
        cost = copy.deepcopy(estimator).eval()(leaf, objective)
        found.append(torch.autograd.grad(cost.sum(), leaf)[0])
    assert torch.equal(*found)


@every_estimator
def test_a_logit_that_is_no_number_shows_in_the_cost(estimator):
    logits = torch.zeros(3, 2, 4)
    logits[1, 0, 2] = torch.nan
    logits[2, 0, 2] = -torch.inf
    objective = lambda z: 1 + z.square().sum((-2, -1))
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            cost = copy.deepcopy(estimator).eval()(logits.clone().requires_grad_(), objective)
        assert cost.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("evaluations", value) for value in (1, "samples", "2 *", "0.5", "True")),
        *(("worth_trying", value) for value in ("x", [{}], ({}, 3))),
    ],
)
def test_what_a_class_declares_is_looked_at_as_it_is_defined(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a t"):
        type("Mine", (Reinforce,), {name: value})
