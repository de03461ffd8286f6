"""What a training step takes on a small GPU: 200 variables of 256 categories, 100 examples, on a card of 8 GB."""

import pytest
import torch
from torch import nn

from benchmarks.gpu.models import NAMES, make
from hardmax.estimators import base, mve
from helpers.cases import in_part
from helpers.devices import NAME, Device, Memory, move, register

FREE = 7 * 2**30  # of 8 GB, when the context of CUDA has taken its part
SIZES, WIDTH, PIXELS = (100, 200, 256), 200, 784
# As many numbers, and fewer evaluations of the objective, or as many categories as are accepted.
FEWER = {"arsm": (100, 1600, 32), "arsm_plus": (100, 1600, 32), "local_expectation": (25600, 20, 10)}
FEWER |= {"stratified": (800, 200, 32)}
MANY_CALLS = ("adaptive_imle", "ars_plus", "arsm_plus", "local_expectation", "mve", "random_local_expectation")
MANY_CALLS += ("sum_and_sample", "unordered_set")  # of the objective, or of a solver, which take seconds
MADE_WITH_NETWORKS = ("nvil", "relax")


@pytest.fixture
def card(monkeypatch):
    """A GPU with so many bytes free, none of them held by PyTorch; gives how many numbers are worked on at a time."""
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    numbers_at_once = base.numbers_at_once

    def of(free):
        base.memory_of.cache_clear()
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
        at_once = numbers_at_once(torch.device("cuda:0"))
        monkeypatch.setattr(base, "numbers_at_once", lambda device: at_once)
        monkeypatch.setattr(mve, "numbers_at_once", lambda device: at_once)
        return at_once

    yield of
    base.memory_of.cache_clear()


APPLYING = [name for name in NAMES if name not in ("exact", "sparse_expectation")]


@pytest.mark.parametrize(
    "name",
    [
        *in_part((name for name in APPLYING if name not in MANY_CALLS), 15),
        *(pytest.param(name, marks=pytest.mark.long) for name in MANY_CALLS),
    ],
)
def test_a_step_fits_on_a_card_of_8_gb(name, card):
    card(FREE)
    (B, K, C), estimator = FEWER.get(name, SIZES), make(name)
    if name in MADE_WITH_NETWORKS:  # lets them take their sizes
        estimator(torch.zeros(1, K, C, requires_grad=True), lambda z: z.square().sum((-2, -1)), torch.zeros(1, WIDTH))
    register()
    with Device(), Memory() as memory:
        linear = lambda a, b: nn.Linear(a, b, device=NAME)
        encoder = linear(WIDTH, K * C)
        decoder = nn.Sequential(linear(K * C, WIDTH), nn.ReLU(), linear(WIDTH, PIXELS))
        parameters = [*encoder.parameters(), *decoder.parameters()]
        of_adam = [torch.empty_like(p) for _ in range(2) for p in parameters]
        features = torch.empty(B, WIDTH, device=NAME)
        logits = encoder(features).unflatten(-1, (K, C))
        log_p = logits.log_softmax(-1)
        cost = move(estimator, NAME)(logits, lambda z: decoder(z.flatten(-2)).square().sum(-1), features)
        (cost + (log_p.exp() * log_p).sum((-2, -1))).mean().backward()
        del of_adam
    assert 2 * logits.numel() * logits.itemsize < memory.peak < FREE


def test_the_more_memory_a_card_has_free_the_more_is_worked_on_at_a_time_up_to_a_bound(card):
    assert [card(free) for free in (2**20, 2**31 - 1, 2**31, 2**34, 2**37)] == [2**10, 2**20, 2**21, 2**24, 2**24]


def test_mve_is_the_same_to_the_last_bit_whatever_is_solved_at_a_time(card):
    torch.manual_seed(0)
    p, right = torch.randn(5, 7, 11).softmax(-1), torch.randn(2, 5, 7, 11)
    whole = mve.solve(p, 3.0, right)
    assert card(2**20) // 11**2 < 5 * 7
    assert torch.equal(mve.solve(p, 3.0, right), whole)
