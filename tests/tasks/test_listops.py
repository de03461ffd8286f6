"""Expressions against a second evaluation and listed shapes; the parser against recursion over trees and sums."""

import itertools
import math
import random
import re
import statistics
from collections import Counter
from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy

from hardmax.estimators import Exact
from hardmax.tasks.expressions import OPERATE, TOKENS, Grammar, expressions, parse
from hardmax.tasks.listops import ListOps

# ---------------------------------------------------------------- expressions


def value(text):
    """Of an expression, its innermost brackets replaced by their values one by one."""
    apply = {
        "MIN": min,
        "MAX": max,
        "MED": lambda values: math.floor(statistics.median(values)),
        "SM": lambda values: sum(values) % 10,
    }
    while found := re.search(r"\[(\w+) ([\d ]+) \]", text):
        inner = apply[found[1]](list(map(int, found[2].split())))
        text = f"{text[: found.start()]}{inner}{text[found.end() :]}"
    return int(text)


def test_values_are_those_of_a_second_evaluation():
    for tokens in (4, 10):
        rows, values, _ = expressions(tokens)["test"]
        assert rows.shape == (1000, tokens)
        for row, expected in list(zip(rows.tolist(), values.tolist(), strict=True))[:200]:
            assert value(" ".join(TOKENS[t] for t in row)) == expected


@pytest.mark.parametrize(
    ("text", "expected", "heads"),
    [
        ("[MAX 2 9 ]", 9, [0, 0, 0, 0]),
        ("[MED 4 1 8 2 ]", 3, [0] * 6),
        ("[MED 4 1 8 3 ]", 3, [0] * 6),
        ("[SM 7 [MIN 5 4 ] 9 ]", 0, [0, 0, 0, 2, 2, 2, 0, 0]),
        ("[MIN [MAX [SM 9 3 ] 1 ] 4 ]", 2, [0, 0, 1, 2, 2, 2, 1, 1, 0, 0]),
        ("7", 7, [0]),
    ],
)
def test_heads_are_operators_around(text, expected, heads):
    assert parse(text.split()) == (expected, heads)


@pytest.mark.parametrize("text", ["", "]", "[MAX ]", "[MAX 1 2", "[MAX 1 2 ] ]", "1 2", "[MAX 1 2 ] 3", "[MAX 1 x ]"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match=r"is not expected after|is not one whole expression"):
        parse(text.split())


def shapes(tokens):
    """Arguments of so many tokens, with x for any digit and [ for any operator, and their probabilities, all listed."""
    if tokens == 1:
        yield "x", 0.75
    for k in range(2, 6):
        for sizes in itertools.product(range(1, tokens - 1), repeat=k):
            if sum(sizes) == tokens - 2:
                for parts in itertools.product(*map(listed, sizes)):
                    texts, probabilities = zip(*parts, strict=True)
                    yield f"[ {' '.join(texts)} ]", 0.25 / 4 * math.prod(probabilities)


@cache
def listed(tokens):
    return list(shapes(tokens))


def test_expressions_have_the_probabilities_of_the_grammar():
    """To rounding in sum; each of the 22 shapes of 10 tokens, and each token, within 4.5 standard errors."""
    grammar = Grammar(10)
    for n in range(1, 11):
        assert grammar.of[1][n] == pytest.approx(sum(p for _, p in shapes(n)))
    rows, _, _ = expressions(10)["train"]
    counts = Counter(
        re.sub(r"\d", "x", re.sub(r"\[\w+", "[", " ".join(TOKENS[t] for t in row))) for row in rows.tolist()
    )
    law = {shape: p / grammar.of[1][10] for shape, p in shapes(10)}
    assert sum(law.values()) == pytest.approx(1)
    assert counts.keys() <= law.keys()
    for shape, p in law.items():
        assert abs(counts[shape] - 1e4 * p) < 4.5 * math.sqrt(1e4 * p * (1 - p)), shape
    for kind in ([*OPERATE], [*"0123456789"]):
        number = torch.tensor([(rows == TOKENS.index(token)).sum() for token in kind]).double()
        p, total = 1 / len(kind), number.sum()
        assert (number - p * total).abs().max() < 4.5 * (total * p * (1 - p)).sqrt(), kind


def test_lengths_are_those_of_the_published_procedure():
    """Of arguments drawn without a given length, within 4.5 standard errors."""
    source, grammar = random.Random(1), Grammar(12)

    def length(depth=1):
        if depth < 20 and source.random() < 0.25:
            return 2 + sum(length(depth + 1) for _ in range(source.randint(2, 5)))
        return 1

    counts, draws = Counter(length() for _ in range(40_000)), 40_000
    for n in range(1, 13):
        p = grammar.of[1][n]
        assert abs(counts[n] - draws * p) <= 4.5 * math.sqrt(draws * p * (1 - p)), n


# ---------------------------------------------------------------- the parser


def small(tokens=4):
    torch.manual_seed(0)
    return ListOps(tokens, 5).double()


def test_at_the_true_heads_it_computes_along_the_tree():
    """Against recursion from the first token on, example by example, with the deepest trees that there are."""
    task = small(10)
    x, _, heads = expressions(10)["test"]
    of_three_operators = (x < len(OPERATE)).sum(-1) == 3
    x, heads = x[of_three_operators], heads[of_three_operators]
    depths = []

    def state(row, above, place, depth=0):
        depths.append(depth)
        below = [state(row, above, n, depth + 1) for n in range(1, len(row)) if above[n] == place]
        arrived = sum(below, torch.zeros(5, dtype=torch.float64))
        return task.passed(task.own(task.known(row[place])) + task.received(arrived))

    z = torch.nn.functional.one_hot(heads[:60, 1:], 10).double()
    found = task.answers(z, x[:60])
    for row, above, answers in zip(x[:60], heads[:60].tolist(), found, strict=True):
        assert torch.allclose(task.answer(state(row, above, 0)), answers, atol=1e-12)
    assert max(depths) == task.rounds == 3


def test_structure_is_in_the_arcs_alone():
    """Tokens in any order give the same, if their arcs go with them."""
    task = small(10)
    x = task.test_tokens[:50]
    z = torch.rand(3, 50, 9, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.tensor([0, 4, 9, 1, 8, 2, 7, 3, 6, 5])
    moved = z[:, :, order[1:] - 1][..., order]
    assert torch.allclose(task.answers(z, x), task.answers(moved, x[:, order]), atol=1e-12)
    assert not torch.allclose(task.answers(z, x), task.answers(z, x[:, order]), atol=1e-3)


def test_cost_and_gradients_are_sums_over_all_heads():
    task = small()
    x, values = task.measurement_batch(6)
    problem = task.problem((x, values))
    ours = Exact()(problem.logits, problem.objective, problem.context)
    p, expected = task.logits(x).softmax(-1), 0
    for heads in itertools.product(range(4), repeat=3):
        z = torch.eye(4, dtype=torch.float64)[list(heads)].expand(6, 3, 4)
        cost = cross_entropy(task.answers(z, x), values, reduction="none")
        expected = expected + (z * p).sum(-1).prod(-1) * cost
    assert torch.allclose(ours, expected)
    parameters = [*task.parameters()]
    for a, b in zip(*(torch.autograd.grad(v.mean(), parameters) for v in (ours, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
        assert a.abs().sum() > 0


def test_the_encoder_is_what_makes_logits():
    task = small()
    gradients = torch.autograd.grad(task.logits(task.test_tokens[:5]).square().sum(), task.encoder_parameters())
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    others = set(task.parameters()) - set(task.encoder_parameters())
    assert len(others) == len([*task.parameters()]) - len(gradients) == 8


def test_figures(monkeypatch):
    task = small(8)
    x, values, heads = expressions(8)["test"]
    found = task.evaluate("test")
    chosen = task.logits(x).argmax(-1)
    z = torch.nn.functional.one_hot(chosen, 8).double()
    pairs = zip(task.answers(z, x), values.tolist(), strict=True)
    assert found["accuracy"] == pytest.approx(sum(int(a.argmax()) == v for a, v in pairs) / 1000)
    assert found["heads"] == pytest.approx(sum(map(torch.Tensor.sum, (chosen == heads[:, 1:]).double())) / 7000)
    certain = 1e6 * torch.nn.functional.one_hot(heads[:, 1:], 8).double()
    monkeypatch.setattr(task, "logits", lambda rows: certain[: len(rows)])
    found = task.evaluate("test")
    assert found["heads"] == 1
    cost = cross_entropy(task.answers(certain / 1e6, x), values)
    assert found["cost"] == pytest.approx(cost.item())
    shown = task.show()["parses"]
    assert len(shown) == 20
    assert all(row["heads"] == row["true heads"] for row in shown)
    assert value(shown[3]["expression"]) == int(shown[3]["value"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"tokens": 3}, "tokens must be an integer of at least 4, got 3"),
        ({"tokens": 101}, "tokens must be from 4 to 100, got 101"),
        ({"width": 0}, "width must be an integer of at least 1, got 0"),
    ],
)
def test_other_sizes_are_refused(arguments, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        ListOps(**arguments)
