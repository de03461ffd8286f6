"""The conformance suite: every YAML under configs/estimator, and wrong estimators that it must reject."""

import copy

import certification as c
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax.paths import CONFIGS

FOLDER = CONFIGS / "estimator"
# Settings beyond those of the YAML that are certified as estimators of their own.
VARIANTS = {
    "straight_through": [{"temperature": 0.5}],
    "stochastic_straight_through": [{"temperature": 0.5}],
    "gumbel_softmax": [{"temperature": 0.5}, {"learned": True}],
    "st_gumbel_softmax": [{"temperature": 0.5, "learned": True}],
    "softmax": [{"temperature": 0.5}],
    "gumbel_rao": [{"noises": 1, "temperature": 0.5}],
    "gapped_straight_through": [{"temperature": 0.5, "gap": 2.0}],
    "slope_annealed": [{"slope": 2.0}],
    "decoupled_st_gumbel": [{"backward_temperature": 0.5}],
    "darn": [{"baseline": "uniform"}],
    "reinmax": [{"temperature": 0.5}],
    "reinmax_rao": [{"temperature": 0.5}],
    "reinmax_cv": [{"temperature": 2.0, "eta": 1.5, "relaxation_temperature": 0.5}],
    "mve": [{"tau": 0}, {"tau": 1e6}],
    "imle": [{"step": 0.1}],
    "reinforce": [
        {"baseline": "none", "samples": 2},
        {"baseline": "leave_one_out", "samples": 2},
        {"baseline": "leave_one_out", "samples": 3},
        {"baseline": "batch"},
        {"baseline": "batch", "samples": 2},
        {"baseline": "greedy"},
    ],
    "nvil": [{"normalise": True}],
    "vimco": [{"samples": 2}, {"samples": 3}],
    "reweighted_wake_sleep": [{"samples": 2}],
    "carms": [{"samples": 2}, {"coupling": "inverse_cdf"}, {"samples": 2, "coupling": "inverse_cdf"}],
    "sum_and_sample": [{"samples": 2}, {"samples": 6}],
    "unordered_set": [{"baseline": False}, {"samples": 1, "baseline": False}, {"samples": 2}],
}
CASES = [(path.stem, {}) for path in sorted(FOLDER.glob("*.yaml"))]
CASES += [(name, options) for name, variants in VARIANTS.items() for options in variants]
CASES = [pytest.param(case, id="-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])) for case in CASES]


@pytest.fixture
def estimator(request):
    name, options = request.param
    return instantiate(OmegaConf.merge(OmegaConf.load(FOLDER / f"{name}.yaml"), options))


def every_estimator(test):
    return pytest.mark.parametrize("estimator", CASES, indirect=True)(test)


@every_estimator
@pytest.mark.parametrize("problem", c.PROBLEMS, ids=lambda p: f"K={p.K},C={p.C}")
def test_value_and_gradients(estimator, problem):
    c.check_expectation(estimator, c.fitting(estimator, problem))


@every_estimator
def test_sampled_kl(estimator):
    c.check_expectation(estimator, c.fitting(estimator, c.SMALL), log_q=True)


@every_estimator
def test_any_number_of_leading_dimensions(estimator):
    c.check_leading_dimensions(copy.deepcopy(estimator))  # learned parts take their sizes from the first logits
    c.check_independent_draws(estimator, c.fitting(estimator, c.SMALL))


@every_estimator
def test_one_evaluation_without_gradients(estimator):
    c.check_without_gradients(estimator, c.fitting(estimator, c.SMALL))


@every_estimator
@pytest.mark.parametrize("problem", [c.Problem(1, 5), c.Problem(2, 3)], ids=lambda p: f"K={p.K},C={p.C}")
def test_evaluations_are_the_stated_ones(estimator, problem):
    problem = c.fitting(estimator, problem)
    names = {"K": problem.K, "C": problem.C, "S": getattr(estimator, "samples", 1)}
    assert sum(c.evaluations(estimator, problem)) == eval(estimator.evaluations, {}, names)


@every_estimator
def test_nested_in_its_own_objective(estimator):
    if c.fitting(estimator, c.SMALL).batch:
        pytest.skip("a baseline over examples needs examples: the nested problem has none")
    c.check_nested(estimator, copy.deepcopy(estimator))


@every_estimator
def test_a_call_moves_no_state(estimator):
    c.check_state(estimator, c.fitting(estimator, c.SMALL))


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logits", [(1.0, 2.0, 3.0), (1e3, 2e3, 3e3), (-1e3, 1.0, 1e4), (0.0, 0.0, -torch.inf)])
def test_extreme_logits_stay_finite(estimator, dtype, logits):
    leaf = torch.tensor(logits, dtype=dtype).expand(2, 1, 3).clone().requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=dtype, requires_grad=True)
    cost = estimator(leaf, lambda z: (z @ weight).sum(-1) ** 2, log_q=True)
    cost.sum().backward()
    assert cost.isfinite().all()
    assert leaf.grad.isfinite().all()
    assert weight.grad.isfinite().all()
    assert (leaf.grad[leaf == -torch.inf] == 0).all(), "a category of probability 0 gets no gradient"


@every_estimator
@pytest.mark.parametrize(("K", "C"), [(1, 1), (3, 1), (1, 2)])
def test_smallest_problems(estimator, K, C):
    leaf = torch.zeros(2, K, C, requires_grad=True)
    cost = estimator(leaf, lambda z: (z * z).sum((-2, -1)) + 1)
    cost.sum().backward()
    assert cost.isfinite().all()
    assert leaf.grad.isfinite().all()
    if C == 1:
        assert torch.allclose(cost, torch.full_like(cost, K + 1.0))
        assert (leaf.grad.abs() < 1e-6).all(), "a variable with one category has no gradient"


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
