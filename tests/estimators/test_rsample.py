"""rsample, a drop-in for torch.nn.functional.gumbel_softmax: its gradient is the one that the estimator has."""

import re

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax import ARSM, Estimator, GumbelSoftmax, ReinMax, StraightThrough, estimators
from hardmax.estimators.pathwise import Pathwise
from hardmax.paths import CONFIGS, ROOT

ESTIMATORS = {p.stem: instantiate(OmegaConf.load(p)) for p in sorted((CONFIGS / "estimator").glob("*.yaml"))}
PATHWISE = [name for name, estimator in ESTIMATORS.items() if isinstance(estimator, Pathwise)]
OTHERS = [name for name in ESTIMATORS if name not in PATHWISE]
SHAPES = [(5,), (2, 5), (3, 2, 5)]


def cost(z, weight):
    """A cost that is neither linear nor separable, ``[*batch, K, C] -> [*batch]``."""
    u = (z * weight).sum((-2, -1))
    return torch.tanh(u) + 0.3 * u**2 + (z.sum(-2) ** 3).sum(-1)


def problem(shape, dtype=torch.float64):
    torch.manual_seed(3)
    weight = torch.randn(shape[-2:] if len(shape) > 1 else (1, *shape), dtype=dtype)
    return torch.randn(shape, dtype=dtype, requires_grad=True), weight


def test_these_have_draws_with_a_gradient():
    """All that evaluate a differentiable objective once."""
    once = [n for n, e in ESTIMATORS.items() if e.differentiates_objective and e.evaluations == "1"]
    assert once == PATHWISE


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PATHWISE)
def test_the_gradient_is_the_estimators(name, shape):
    estimator = ESTIMATORS[name]
    logits, weight = problem(shape)
    with_variables = logits if len(shape) > 1 else logits.unsqueeze(0)
    torch.manual_seed(1)
    value = estimator(with_variables, lambda z: cost(z, weight)).sum()
    (expected,) = torch.autograd.grad(value, logits)
    torch.manual_seed(1)
    z = estimator.rsample(logits)
    assert z.shape == shape
    torch.manual_seed(1)
    assert torch.equal(z, estimator.sample(logits))
    found = cost(z if len(shape) > 1 else z.unsqueeze(0), weight).sum()
    torch.testing.assert_close(found, value)
    (gradient,) = torch.autograd.grad(found, logits)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PATHWISE)
def test_the_precision_is_kept_and_extremes_are_finite(name, dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, -torch.inf, 1.0]], dtype=dtype, requires_grad=True)
    z = ESTIMATORS[name].rsample(logits)
    assert z.dtype == dtype
    assert z.sum(-1).tolist() == pytest.approx([1, 1], abs=0.02)
    z.square().sum().backward()
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", PATHWISE)
def test_without_gradients_a_draw_is_a_constant(name):
    logits, _ = problem((2, 5))
    with torch.no_grad():
        assert not ESTIMATORS[name].rsample(logits).requires_grad
    assert not ESTIMATORS[name].sample(logits).requires_grad


@pytest.mark.parametrize("name", OTHERS)
def test_who_needs_values_of_the_cost_shows_the_closure(name):
    estimator = ESTIMATORS[name]
    with pytest.raises(NotImplementedError) as refused:
        estimator.rsample(torch.zeros(2, 5))
    (line,) = str(refused.value).splitlines()
    assert f"cost = {type(estimator).__name__}(...)(logits, objective)" in line
    assert not estimator.sample(torch.zeros(2, 5, requires_grad=True)).requires_grad


def test_a_temperature_that_moves():
    estimator, logits = GumbelSoftmax(2.0, rate=1.0, floor=0.1, every=1), torch.zeros(1000, 4)
    before = estimator.rsample(logits).amax(-1).mean()
    for _ in range(3):
        estimator.advance()
    assert estimator.rsample(logits).amax(-1).mean() > before + 0.2


@pytest.mark.parametrize("make", [ReinMax, StraightThrough, GumbelSoftmax])
def test_compiled(make):
    estimator, (logits, weight) = make(), problem((3, 2, 5), torch.float32)

    def loss(logits):
        return cost(estimator.rsample(logits), weight).sum()

    torch.manual_seed(0)
    (expected,) = torch.autograd.grad(loss(logits), logits)
    torch.manual_seed(0)
    (found,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(logits), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("logits", "error", "text"),
    [
        (torch.zeros(3, dtype=torch.long), TypeError, "floating point"),
        (torch.zeros(()), ValueError, r"\[\.\.\., C\]"),
        (torch.zeros(2, 0), ValueError, r"\[2, 0\]"),
    ],
)
def test_other_logits_are_refused(logits, error, text):
    with pytest.raises(error, match=text):
        ReinMax().rsample(logits)
    with pytest.raises(error, match=text):
        ARSM().sample(logits)


def test_the_guide_names_all_that_have_it():
    text = (ROOT / "docs/guides/library.md").read_text("utf-8")
    (said,) = re.findall(r"`rsample` is there where the gradient flows through the draw: ([^.]*)\.", text)
    classes = [made for made in vars(estimators).values() if isinstance(made, type) and issubclass(made, Estimator)]
    assert set(re.findall(r"`(\w+)`", said)) == {c.__name__ for c in classes if c.rsample is not Estimator.rsample}


def test_a_draw_after_eval_is_as_random_and_soft():
    logits = torch.zeros(100, 4)
    for estimator in (GumbelSoftmax(), ReinMax()):
        torch.manual_seed(0)
        expected = estimator.rsample(logits)
        torch.manual_seed(0)
        assert torch.equal(estimator.eval().rsample(logits), expected)
        assert len(expected.argmax(-1).unique()) == 4
