"""What an estimator keeps: precision of its parameters and buffers, lazily made layers, costs of steps to come."""

import copy
import pickle
import warnings

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax.estimators import MVE, NVIL, GumbelRao, GumbelSoftmax, Reinforce, Relax, Rodeo, SlopeAnnealed, base
from hardmax.estimators.base import RunningMean
from hardmax.paths import CONFIGS

NAMES = sorted(path.stem for path in (CONFIGS / "estimator").glob("*.yaml"))
LAZY = {"relax": lambda: Relax(width=4), "nvil": lambda: NVIL(widths=[4]), "rodeo": lambda: Rodeo(width=4)}


def step(estimator, dtype=torch.float32, context=torch.float32):
    """A training step's backward pass, and what the estimator does after it; gives the gradient to the logits."""
    logits = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    features = torch.ones(2, 5, dtype=context)
    estimator(logits, lambda z: (z[..., 0].sum(-1) + 1) ** 2, features).mean().backward()
    estimator.advance()
    return logits.grad


@pytest.fixture
def default_double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def precisions(estimator):
    return {p.dtype for p in estimator.parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAZY)
def test_layers_made_at_the_first_call_take_the_default_precision(default_double, name, dtype):
    estimator = LAZY[name]()
    assert step(estimator, dtype).isfinite().all()
    assert precisions(estimator) == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("asked", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("by", ["to", "method"])
def test_layers_made_at_the_first_call_take_the_precision_asked_for_before_it(name, asked, dtype, by):
    method = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}[asked]
    estimator = LAZY[name]().to(asked) if by == "to" else getattr(LAZY[name](), method)()
    for _ in range(2):
        assert step(estimator, dtype).isfinite().all()
    assert precisions(estimator) == {asked}
    assert all(p.grad is not None for p in estimator.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_in_another_precision_goes_on(name, dtype):
    """Before its first call and after it; what it counts and averages is kept in the precision that it was."""
    torch.manual_seed(0)
    estimator = instantiate(OmegaConf.load(CONFIGS / "estimator" / f"{name}.yaml"))
    before = {key: buffer.dtype for key, buffer in estimator.named_buffers()}
    estimator.to(dtype)
    for _ in range(2):
        assert step(estimator).isfinite().all()
    estimator.float().to(dtype)
    assert step(estimator).isfinite().all()
    assert {key: buffer.dtype for key, buffer in estimator.named_buffers()} == before


@pytest.mark.parametrize("estimator", [Reinforce(), NVIL(), torch.nn.ModuleList([Reinforce(), NVIL()])])
def test_running_means_survive_a_narrower_precision(estimator):
    each = estimator if isinstance(estimator, torch.nn.ModuleList) else [estimator]
    for e in each:
        step(e)
    before = [e.running().clone() for e in each]
    estimator.half()
    assert all(torch.equal(e.running(), mean) for e, mean in zip(each, before, strict=True))


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (SlopeAnnealed(rate=1e-4), lambda e: e.slope()),
        (MVE(rate=1e-4, every=1), lambda e: e.tau_now()),
        (GumbelSoftmax(rate=1e-4, every=1), lambda e: e.temperature()),
        (GumbelRao(rate=1e-4, every=1), lambda e: e.temperature()),
    ],
)
def test_schedules_count_on_in_half_precision(estimator, value):
    """In bfloat16 one cannot count beyond 256."""
    estimator.bfloat16()
    for _ in range(300):
        estimator.advance()
    at_300 = float(value(estimator))
    estimator.advance()
    assert float(value(estimator)) != at_300


def test_nvil_first_called_in_inference_mode_can_be_trained():
    estimator = NVIL(widths=[4])
    with torch.inference_mode():
        estimator(torch.zeros(2, 3, 4), lambda z: z[..., 0].sum(-1), torch.ones(2, 5))
    assert len(list(estimator.parameters())) == 4
    step(estimator)
    assert all(p.grad is not None for p in estimator.parameters())
    torch.optim.SGD(estimator.parameters(), lr=0.1).step()


@pytest.mark.parametrize("name", NAMES)
def test_any_estimator_first_called_in_inference_mode_can_be_trained(name):
    estimator = instantiate(OmegaConf.load(CONFIGS / "estimator" / f"{name}.yaml"))
    with torch.inference_mode():
        estimator(torch.zeros(2, 3, 4), lambda z: z[..., 0].sum(-1), torch.ones(2, 5))
    assert step(estimator).isfinite().all()


@pytest.mark.parametrize("make", [Reinforce, NVIL])
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_a_cost_that_is_not_finite_leaves_running_means_as_they_were(make, odd):
    estimator, logits = make(), torch.zeros(2, 1, 3, requires_grad=True)
    for cost in (3.0, 5.0):
        estimator(logits, lambda z, cost=cost: cost + 0 * z.sum((-2, -1)))
        estimator.advance()
    before = estimator.running().clone()
    estimator(logits, lambda z: z[..., 0].sum(-1) * odd + odd)
    estimator.advance()
    assert estimator.running().equal(before)
    assert before.abs().max() > 1


def test_relax_is_not_for_two_choices_of_other_sizes():
    estimator = LAZY["relax"]()
    step(estimator)
    with pytest.raises(ValueError, match="learned for logits of K x C = 12: each choice has an object of its own"):
        estimator(torch.zeros(2, 2, 4, requires_grad=True), lambda z: z[..., 0].sum(-1))


# ---------------------------------------------------------------- without advance()


@pytest.mark.parametrize("make", [Reinforce, NVIL])
def test_without_advance_memory_is_bounded_and_a_user_is_told_once(monkeypatch, make):
    monkeypatch.setattr(base, "FORGOTTEN", 30)
    estimator, logits = make(), torch.zeros(2, 1, 3, requires_grad=True)

    def bytes_kept(calls):
        for _ in range(calls):
            estimator(logits, lambda z: z[..., 0].sum(-1))
        return len(pickle.dumps(estimator))

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        before = bytes_kept(29)
        assert not told
        assert bytes_kept(100) == before
    (warning,) = told
    assert "call the estimator's advance() after every optimiser step" in str(warning.message)


SCHEDULED = [
    lambda: GumbelSoftmax(rate=0.01),
    lambda: GumbelRao(over=100),
    lambda: MVE(rate=0.01),
    lambda: MVE(over=100),
    SlopeAnnealed,
]


@pytest.mark.parametrize("make", SCHEDULED)
def test_a_schedule_that_stands_still_is_told_of_once(monkeypatch, make):
    monkeypatch.setattr(base, "FORGOTTEN", 30)
    estimator, logits = make(), torch.zeros(2, 1, 3, requires_grad=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(100):
            estimator(logits, lambda z: z[..., 0].sum(-1))
            estimator.advance()
        for _ in range(29):
            estimator(logits, lambda z: z[..., 0].sum(-1))
        with torch.no_grad():
            [estimator.sample(logits) for _ in range(100)]
        copied = copy.deepcopy(estimator).eval()
        [copied.rsample(logits) for _ in range(100)]
        assert not told
        [estimator.rsample(logits) for _ in range(100)]
    (warning,) = told
    assert "a schedule that stands still: call the estimator's advance() after every" in str(warning.message)


@pytest.mark.parametrize(("name", "stuck"), [("relax", "log_temperature"), ("nvil", "baseline.network.0.weight")])
def test_learned_parameters_that_no_optimiser_has_are_told_of_once(monkeypatch, name, stuck):
    """NVIL's network is made at the first call: an optimiser made before it has its scalar alone."""
    monkeypatch.setattr(base, "FORGOTTEN", 30)
    for early in (True, False):
        estimator, logits, context = LAZY[name](), torch.zeros(2, 1, 3, requires_grad=True), torch.ones(2, 5)
        if not early:
            estimator(logits, lambda z: z[..., 0].sum(-1), context)
        own = [estimator.baseline.scalar] if name == "nvil" and early else list(estimator.parameters())
        optimizer = torch.optim.Adam([logits, *([] if name == "relax" and early else own)], 0.1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(100):
                optimizer.zero_grad()
                estimator(logits, lambda z: z[..., 0].sum(-1), context).mean().backward()
                optimizer.step()
                estimator.advance()
        found = [str(w.message) for w in told]
        assert len(found) == early
        assert all("30 costs, and" in text and stuck in text and "parameters()" in text for text in found)


@pytest.mark.parametrize("make", [GumbelSoftmax, lambda: SlopeAnnealed(rate=0), MVE, GumbelRao])
def test_what_has_no_schedule_is_not_told_to_move_it(monkeypatch, make):
    monkeypatch.setattr(base, "FORGOTTEN", 30)
    estimator, logits = make(), torch.zeros(2, 1, 3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            estimator(logits, lambda z: z[..., 0].sum(-1))


def test_what_was_noted_between_steps_counts_by_its_mean():
    estimator = Reinforce(decay=0.5)
    for costs in ([1.0, 2.0, 6.0], [5.0]):
        for cost in costs:
            estimator(torch.zeros(1, 3, requires_grad=True), lambda z, cost=cost: torch.full(z.shape[:-2], cost))
        estimator.advance()
    assert float(estimator.running()) == pytest.approx((3.0 + 2 * 5.0) / 3)


def test_what_is_noted_before_a_move_goes_along():
    mean = RunningMean(0.5)
    mean.note(torch.tensor(3.0))
    assert mean.to("meta").sum.device.type == "meta"
    mean = RunningMean(0.5, (2,))
    for value in (1.0, 3.0):
        mean.note(torch.full((2,), value))
    mean.advance()
    mean.note(torch.full((2,), 8.0))
    mean.advance()
    assert mean().tolist() == pytest.approx([6.0, 6.0]), "2 with weight 0.25, 8 with 0.5"
    assert mean.sum.tolist() == [0, 0]
    assert not any("sum" in key for key in mean.state_dict()), "a checkpoint lies between two steps"


def test_a_baseline_that_has_its_size_loads_into_one_that_has_not():
    trained, fresh = NVIL(widths=[5]), NVIL(widths=[5])
    context = torch.randn(4, 3)
    trained(torch.zeros(4, 2, 3), lambda z: z.sum((-2, -1)), context)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.baseline(context), trained.baseline(context))
    with pytest.raises(RuntimeError, match="size mismatch"):
        NVIL(widths=[6]).load_state_dict(trained.state_dict())
