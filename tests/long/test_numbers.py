r"""Every estimator at hard logits, in every precision, beside float64 with the same noise, and at hard objectives."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax import certification as c
from helpers.commands import ROOT

FOLDER = ROOT / "configs/estimator"
NAMES = sorted(p.stem for p in FOLDER.glob("*.yaml"))
BATCH = 3
INF = math.inf


def spread(*rows):
    return torch.tensor(rows, dtype=torch.float64).expand(BATCH, -1, -1)


def normal(K, C):
    return torch.randn(BATCH, K, C, generator=torch.Generator().manual_seed(K + C), dtype=torch.float64)


LOGITS = {
    "all equal": spread([0.5] * 3, [0.5] * 3),
    "1e4 and -1e4": spread([1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]),
    "one at -inf": spread([0.3, -INF, 1.0], [-INF, 0.2, 0.1]),
    "all but one at -inf": spread([-INF, 0.0, -INF], [-INF, -INF, 3.0]),
    "1e-30 apart": spread([0.0, 1e-30, 2e-30], [2e-30, 0.0, 1e-30]),
    "C = 1": normal(2, 1),
    "C = 2": normal(2, 2),
    "C = 256": normal(2, 256),
    "C = 4096": normal(2, 4096),
    "K = 1": normal(1, 3),
    "K = 512": normal(512, 3),
}
# IMLE's step of 1 down a cost with log q makes all logits equal, and bfloat16 has steps of 64 at 1e4: which of them is
# highest is then not defined. Its gradient there is compared with nothing but what it always is: a difference of draws.
UNDEFINED = [(name, "1e4 and -1e4", torch.bfloat16) for name in ("imle", "black_box", "sum_of_gamma_imle")]
UNDEFINED.append(("symmetric_imle", "1e4 and -1e4", torch.bfloat16))  # half a difference
UNDEFINED.append(("black_box", "C = 256", torch.bfloat16))  # two of 256 are nearer than the derivative's rounding
# Of parts as large as 1 a value of 0.009 is left, and bfloat16 has steps of 0.004 at 1: it is compared with the parts.
CANCELS = ("sparsemax", "one at -inf", torch.bfloat16)
# Of value and gradients, relative to the largest of them: what rounding leaves.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-3, torch.bfloat16: 0.15}


def estimator_of(name):
    torch.manual_seed(0)
    options = {"limit": 2**20} if name in ("exact", "sparse_expectation") else {}
    return instantiate(OmegaConf.merge(OmegaConf.load(FOLDER / f"{name}.yaml"), options))


def sized(estimator, logits):
    """The estimator, its learned parts having the same initial values whatever the precision."""
    if list(estimator.parameters()):
        few = torch.zeros_like(logits, requires_grad=True)
        estimator(few, lambda z: z.sum((-2, -1)), context=torch.ones(BATCH, 2, dtype=torch.float64))
    return estimator


def fixed_noise():
    """Noise that is the same in every precision, in the place of the sampling module's."""
    generator = torch.Generator().manual_seed(11)

    def uniform(logits, samples):
        u = torch.rand((samples, *logits.shape), generator=generator, dtype=torch.float64)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return u.clamp(1e-6, 1 - 1e-6).to(dtype)  # open in every precision

    def gumbel(logits, samples):
        return -(-uniform(logits.double(), samples).log()).log().to(torch.promote_types(logits.dtype, torch.float32))

    return c.patched(uniform=uniform, gumbel=gumbel)


class Objective:
    """A cost of z with parameters of its own; keeps where it is evaluated with gradients."""

    def __init__(self, K, C, dtype):
        g = torch.Generator().manual_seed(5)
        make = lambda: torch.randn(K, C, generator=g, dtype=torch.float64) / K**0.5
        self.a, self.b = (make().to(dtype).requires_grad_() for _ in range(2))
        self.seen = []

    def __call__(self, z):
        if torch.is_grad_enabled():
            self.seen.append(z.detach())
        return (z * self.a).sum((-2, -1)).tanh() + (z * self.b).sum((-2, -1)) ** 2 + 1


def run(name, logits, dtype, objective=None):
    """Value, gradient to the logits, and those to the objective's parameters; the points of evaluation."""
    estimator = sized(estimator_of(name), logits).to(dtype)
    leaf = logits.to(dtype).clone().requires_grad_()
    objective = objective or Objective(*logits.shape[-2:], dtype)
    torch.manual_seed(1)
    with fixed_noise():
        cost = estimator(leaf, objective, context=torch.ones(BATCH, 2, dtype=dtype), log_q=True)
        cost.mean().backward()
    for parameter in estimator.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), "a learned part's gradient is not finite"
    return [cost.detach(), leaf.grad, objective.a.grad, objective.b.grad], objective.seen


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", LOGITS)
@pytest.mark.parametrize("name", NAMES)
def test_hard_logits(name, case, dtype):
    logits = LOGITS[case].to(dtype).double()
    try:
        found, seen = run(name, logits, dtype)
    except ValueError as error:
        if "limit" not in str(error):
            raise
        pytest.skip(f"refused: {error}")
    impossible = logits == -INF  # elsewhere AR and its kin have gradients whose mean alone vanishes
    for z in seen if name not in ("exact", "sparse_expectation") else []:  # which evaluates everything
        assert (z[..., impossible] == 0).all(), "a category of probability zero was drawn"
    names = ("value", "gradient", "the parameters' gradient", "the parameters' gradient")
    assert (found[1][impossible] == 0).all(), "a category of probability zero has a gradient"
    for what, x in zip(names, found, strict=True):
        assert x.isfinite().all(), f"{what} is not finite"
    expected, _ = run(name, logits, torch.float64)
    for what, x, y in zip(names, found, expected, strict=True):
        if what == "gradient" and (name, case, dtype) in UNDEFINED:
            x = x * BATCH * (2 if name == "symmetric_imle" else 1)
            draws = x.round()
            assert float((x - draws).abs().max()) < 0.02
            assert float(draws.abs().max()) <= 1
            assert (draws.sum(-1) == 0).all()
            continue
        scale = max(float(y.abs().max()), float(expected[0].abs().max()) / BATCH)
        if what == "value" and (name, case, dtype) == CANCELS:
            scale = 1.0
        error = float((x.double() - y).abs().max()) / scale
        assert error <= TOLERANCE[dtype], f"{what} is off by {error:.1e} of the largest"


class Constant(Objective):
    """A cost that does not depend on z, but for its place in the graph."""

    def __init__(self, K, C, dtype, value):
        super().__init__(K, C, dtype)
        self.value = value

    def __call__(self, z):
        return super().__call__(z) * 0 + self.value


@pytest.mark.parametrize("value", [1e30, -1e30, 7.0])
@pytest.mark.parametrize("name", NAMES)
def test_hard_objectives(name, value):
    logits = LOGITS["one at -inf"]
    found, _ = run(name, logits, torch.float32, Constant(2, 3, torch.float32, value))
    for what, x in zip(("value", "gradient"), found[:2], strict=True):
        assert x.isfinite().all(), f"{what} is not finite"
