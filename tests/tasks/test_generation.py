"""Sentences written word by word, against sums over all sentences."""

import itertools
import math

import pytest
import torch

from hardmax.estimators import (
    ARSM,
    Exact,
    GumbelSoftmax,
    Reinforce,
    StochasticStraightThrough,
    StraightThrough,
    StraightThroughGumbelSoftmax,
)
from hardmax.gradients import forked_random, measure
from hardmax.tasks.generation import Generation
from helpers.cases import in_part


def small(length=3, vocabulary=3, estimator=None):
    torch.manual_seed(0)
    task = Generation(length, vocabulary, 4).double()
    for p in task.parameters():
        torch.nn.init.normal_(p)
    if estimator is not None:
        task.nest(estimator.double())
    return task


def brute_force(task):
    """The divergence in plain numbers, sentence by sentence."""
    total = 0.0
    with torch.no_grad():
        for sentence in itertools.product(range(task.V), repeat=task.T):
            state, p, q, before = task.state.unsqueeze(0), 1.0, 1.0, None
            for word in sentence:
                p *= float(task.word(state).softmax(-1)[0, word])
                q *= math.exp(task.language.first[word] if before is None else task.language.after[before, word])
                state = task.cell(torch.eye(task.V).double()[word].unsqueeze(0), state)
                before = word
            total += p * (math.log(p) - math.log(q))
    return total


def loss(task, estimator, count):
    problem = task.problem(torch.zeros(count))
    return estimator(problem.logits, problem.objective, problem.context) + problem.penalty


def gradients(task, loss):
    found = torch.autograd.grad(loss, list(task.parameters()), allow_unused=True)
    pairs = zip(task.parameters(), found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


@pytest.mark.parametrize("sizes", [(1, 3), (2, 3), (3, 3), (4, 2), (3, 1)])
def test_exact_kl_is_a_sum_over_all_sentences(sizes):
    task = small(*sizes)
    assert task.exact_kl().item() == pytest.approx(brute_force(task), abs=1e-12)
    assert task.evaluate("test")["kl"] == pytest.approx(brute_force(task), abs=1e-12)


@pytest.mark.parametrize("sizes", [(1, 3), (2, 3), (3, 3), (4, 2)])
def test_loss_and_gradient_of_nested_enumeration_are_exact(sizes):
    estimator = Exact()
    task = small(*sizes, estimator)
    ours = loss(task, estimator, 2)
    assert torch.allclose(ours, task.exact_kl().expand(2))
    assert torch.allclose(gradients(task, ours.mean()), gradients(task, task.exact_kl()), atol=1e-10)


@pytest.mark.parametrize("estimator", [Reinforce(1, "batch"), Reinforce(2, "leave_one_out"), ARSM()])
def test_unbiased_estimators_are_unbiased_to_the_parameters(estimator):
    task = small(estimator=estimator)
    exact = gradients(task, task.exact_kl())
    torch.manual_seed(1)
    draws = torch.stack([gradients(task, loss(task, estimator, 2000).mean()) for _ in range(40)])
    error = draws.std(0) / 40**0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-9).all(), ((draws.mean(0) - exact) / error).abs().max()


def test_sampled_figures_and_losses_have_the_exact_one_as_mean():
    estimator = Reinforce(1, "batch")
    task = small(estimator=estimator)
    torch.manual_seed(1)
    with torch.no_grad():
        for kl in (task.sentences(20_000)[1], loss(task, estimator, 20_000)):
            assert abs(float(kl.mean() - task.exact_kl())) < 4 * float(kl.std()) / 20_000**0.5


@pytest.mark.long
def test_statistics_are_to_the_parameters():
    for estimator, variance in ((Exact(), 0), (Reinforce(1, "batch"), None)):
        task = small(estimator=estimator)
        with forked_random(torch.device("cpu"), 1):
            found = measure(task, estimator, task.problem(task.measurement_batch(50)), 400)
        assert not any(name.startswith("logits/") for name in found)
        first = task.problem(torch.zeros(1)).penalty.mean()
        truth = gradients(task, task.exact_kl() - first)
        assert found["encoder/true_norm"] == pytest.approx(float(truth.norm()))
        if variance == 0:
            assert found["encoder/variance"] == 0
            assert found["encoder/bias2"] == pytest.approx(0, abs=1e-12)
        else:
            assert abs(found["encoder/bias2"]) < 0.5 * found["encoder/variance"] / 400
        assert estimator.training


def test_nothing_but_the_random_stream_moves_while_measuring():
    estimator = Reinforce()
    task = small(estimator=estimator)
    measure(task, estimator, task.problem(task.measurement_batch(5)), 3)
    assert all(p.grad is None for p in task.parameters())
    assert not any(e.running.pending for e in (estimator, *task.inner))


LONG = [
    GumbelSoftmax(),
    StraightThroughGumbelSoftmax(),
    Reinforce(1, "batch"),
    StraightThrough(),
    StochasticStraightThrough(),
]


@pytest.mark.parametrize("estimator", in_part(LONG, 3), ids=lambda e: type(e).__name__)
def test_sentences_of_200_words(estimator):
    torch.manual_seed(0)
    task = Generation(200, 5, 8)
    task.nest(estimator)
    assert len(set(map(id, task.inner))) == 198, "each place has an estimator of its own"
    dimensions = []
    judge = task.rest
    task.rest = lambda z, state, place: dimensions.append((z.ndim, z.shape[-3])) or judge(z, state, place)
    loss(task, estimator, 6).mean().backward()
    assert len(dimensions) == 199
    assert set(dimensions) == {(4, 6), (5, 6)} or set(dimensions) == {(4, 6)}
    assert all(p.grad.isfinite().all() for p in task.parameters())
    assert task.evaluate("test")["kl"] > 0


def test_copies_do_not_mix():
    """Examples of other copies are no baseline: the batch stays a dimension of its own."""
    estimator = Reinforce(1, "batch")
    task = small(estimator=estimator)
    problem = task.problem(torch.zeros(4))
    shapes = []
    inner = task.inner[0].estimate
    task.inner[0].estimate = lambda logits, *rest: shapes.append(tuple(logits.shape)) or inner(logits, *rest)
    cost = estimator(
        problem.logits.expand(7, *problem.logits.shape), problem.objective, problem.context.expand(7, 4, 4)
    )
    assert cost.shape == (7, 4)
    assert shapes == [(7, 4, 1, 3)]


def test_a_model_that_is_the_language_has_no_divergence():
    task = small(3, 3)
    with torch.no_grad():
        task.language.after.copy_(task.language.first.expand(3, -1))
        task.word.weight.zero_()
        task.word.bias.copy_(task.language.first)
    assert task.evaluate("test")["kl"] == pytest.approx(0, abs=1e-6), "single precision of the language"


def test_the_language_is_a_distribution_with_full_support():
    language = Generation().language
    assert torch.allclose(language.first.exp().sum(), torch.tensor(1.0))
    assert torch.allclose(language.after.exp().sum(-1), torch.ones(8))
    assert language.after.isfinite().all()
    assert torch.equal(language.after, Generation().language.after), "the same for every run"
    halves = torch.zeros(8)
    halves[:2] = 0.5
    assert torch.allclose(language.log_p(halves), language.after[:2].mean(0)), "linear between words"
