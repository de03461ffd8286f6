"""Every unbiased estimator on sums of sixteen digits, of 10^16 configurations, beside the exact gradient."""

import math

import pytest
import torch

from hardmax import certification as c
from hardmax.certification import expectations
from hardmax.estimators import Reinforce
from hardmax.estimators.released import CoupledLeaveOneOut
from hardmax.gradients.enumeration import Failed
from hardmax.tasks.addition import probability_of_another_sum
from helpers.cases import CASES, build
from helpers.wrong import MeanOverReferences, OwnCostInBaseline

N, C, EXAMPLES = 16, 10, 2
NUMBERS = 2**22  # of z at a time
BELIEVED = torch.randint(C - 1, (EXAMPLES, N), generator=torch.Generator().manual_seed(0))
LOGITS = 0.2 * torch.randn(EXAMPLES, N, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LOGITS += 4.8 * torch.nn.functional.one_hot(BELIEVED, C)
LOGITS[1, 0, BELIEVED[1, 0] + 1] += 5.2  # in the second example a digit is rather one more than was believed
SUMS = BELIEVED.sum(-1) + torch.tensor([0, 1])
UNBIASED = [case for case in CASES if build(case.values[0]).unbiased and case.values[0][0] != "exact"]
WRONG = [CoupledLeaveOneOut, OwnCostInBaseline, MeanOverReferences]


def objective(z):
    return (z.argmax(-1).sum(-1) != SUMS).to(z.dtype)


def truth_of(estimator):
    """Exact value ``[EXAMPLES]`` and gradient ``[EXAMPLES * N * C]``: of the expected cost, or minus the bound.

    The number of right sums among the draws of a bound is binomial, and its gradient that of their probability.
    """
    logits = LOGITS.clone().requires_grad_()
    wrong = probability_of_another_sum(logits.softmax(-1), SUMS)
    value = wrong
    if estimator.target == "bound":
        S = estimator.samples
        right = torch.arange(S + 1, dtype=torch.float64).unsqueeze(-1)
        ways = torch.tensor([math.comb(S, m) for m in range(S + 1)], dtype=torch.float64).unsqueeze(-1)
        law = ways * (1 - wrong) ** right * wrong ** (S - right)  # [S + 1, EXAMPLES]
        value = -(law * ((right + (S - right) / math.e) / S).log()).sum(0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient.flatten()


def run_of(estimator):
    """Draws of the value, and of the gradient with its multiple of the true one, which is 1 in the mean."""
    true = truth_of(estimator)[1]
    torch.manual_seed(0)
    estimator(LOGITS.clone().requires_grad_(), objective).sum().backward()  # learned parts take their sizes
    estimator.advance()
    estimator.eval()
    counts = {"K": N, "C": C, "S": getattr(estimator, "samples", 1)}
    evaluations = eval(estimator.evaluations.removeprefix("at most "), counts)
    at_once = max(1, NUMBERS // (LOGITS.numel() * evaluations))

    def run(draws):
        parts = []
        for first in range(0, draws, at_once):
            logits = LOGITS.expand(min(at_once, draws - first), *LOGITS.shape).clone().requires_grad_()
            cost = estimator(logits, objective)
            gradient = torch.autograd.grad(cost.sum(), logits)[0].flatten(1)
            along = gradient @ true / (true @ true)
            parts.append((cost.detach(), torch.cat([gradient, along.unsqueeze(-1)], -1)))
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    return run


def largest_z(estimator):
    """Of all coordinates, in standard errors; Failed if that is beyond the bound for so many."""
    value, gradient = truth_of(estimator)
    truths = [value, torch.cat([gradient, gradient.new_ones(1)])]
    found = c.assert_mean(run_of(estimator), truths, "sixteen digits")
    return found * expectations.z_bound(sum(map(len, truths)))


def test_the_right_sum_is_neither_rare_nor_sure():
    right = 1 - probability_of_another_sum(LOGITS.softmax(-1), SUMS)
    assert ((right > 0.2) & (right < 0.5)).all()
    assert LOGITS.softmax(-1).min() * expectations.DRAWS > 100, "every category is seen often enough for a normal mean"


@pytest.mark.parametrize("case", UNBIASED)
def test_an_unbiased_estimator_is_unbiased(case, capsys, request):
    z = largest_z(build(case))
    with capsys.disabled():
        print(f"\n{request.node.callspec.id}: {z:.2f} standard errors at most", flush=True)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda made: made.__name__)
def test_a_biased_one_is_found(wrong, capsys):
    with pytest.raises(Failed) as failure:
        largest_z(wrong(samples=2) if issubclass(wrong, Reinforce) else wrong())
    with capsys.disabled():
        print(f"\n{failure.value}", flush=True)
