"""The test file of ListOps (Nangia and Bowman, 2018), where ``HARDMAX_DATA`` has it: listops/test_d20s.tsv.gz."""

import gzip
import math
import os
from collections import Counter
from pathlib import Path

import pytest

from hardmax.tasks.expressions import OPERATE, Grammar, parse

FILE = Path(os.environ.get("HARDMAX_DATA", "")) / "listops/test_d20s.tsv.gz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="HARDMAX_DATA has no listops/test_d20s.tsv.gz")


@pytest.fixture(scope="module")
def published():
    """Values, and tokens without the round brackets, which say how expressions are read from the left."""
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        rows = [line.split("\t") for line in file]
    return [(int(number), [token for token in text.split() if token not in ("(", ")")]) for number, text in rows]


def test_all_published_values_are_recomputed(published):
    assert len(published) == 10_000
    assert [parse(tokens)[0] for _, tokens in published] == [number for number, _ in published]


def test_the_grammar_is_the_published_one(published):
    """Lengths from 10 to 40 tokens, below which no expression is there twice, and operators, in 4.5 standard errors."""
    lengths, few, many = Counter(len(tokens) for _, tokens in published), 10, 40
    grammar = Grammar(many)
    total, known = sum(lengths[n] for n in range(few, many + 1)), sum(grammar.of[1][few:])
    assert total > 4000
    for n in range(few, many + 1):
        p = grammar.of[1][n] / known
        assert abs(lengths[n] - total * p) < 4.5 * math.sqrt(total * p * (1 - p)), n
    operators = Counter(token for _, tokens in published for token in tokens if token in OPERATE)
    assert operators.keys() == OPERATE.keys()
    total = sum(operators.values())
    assert all(abs(count - total / 4) < 4.5 * math.sqrt(total * 3 / 16) for count in operators.values())
