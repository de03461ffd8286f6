r"""Expressions of ListOps: drawn with a given number of tokens, parse and evaluated."""

import random
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

OPERATE: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: (sorted(values)[(len(values) - 1) // 2] + sorted(values)[len(values) // 2]) // 2,
    "[SM": lambda values: sum(values) % 10,
}
TOKENS = (*OPERATE, "]", *"0123456789")
OPERATOR = 0.25  # the probability that an argument is an expression, and no digit
ARGUMENTS = (2, 3, 4, 5)  # how many an operator has, all equally probable
FEWEST_TOKENS = 2 + ARGUMENTS[0]  # tokens of an expression
EXPRESSION_SPLITS = {"train": 10_000, "valid": 1_000, "test": 1_000}


def parse(tokens: Sequence[str]) -> tuple[int, list[int]]:
    r"""The value of an expression, and for each token the place of the operator to which it belongs.

    An argument belongs to the operator whose argument it is, a bracket to the operator that it closes, the first token
    to itself. The median of an even number of arguments is the mean of the two in the middle, rounded down; ``[SM`` is
    the sum modulo 10.

    Raises:
        ValueError: If this is not one whole expression.
    """
    values: list[int] = []
    arguments = values  # those of the operator that is open
    opened: list[tuple[int, list[int]]] = []  # its place, and the arguments around it
    heads: list[int] = []
    for place, token in enumerate(tokens):
        heads.append(opened[-1][0] if opened else 0)
        if token in OPERATE:
            opened.append((place, arguments))
            arguments = []
        elif token == "]" and opened and arguments:
            start, outside = opened.pop()
            outside.append(OPERATE[tokens[start]](arguments))
            arguments = outside
        elif token in TOKENS and token != "]":
            arguments.append(int(token))
        else:
            raise ValueError(f"{token} is not expected after {' '.join(tokens[:place]) or 'nothing'}")
    if opened or len(values) != 1:
        raise ValueError(f"{' '.join(tokens)} is not one whole expression")
    return values[0], heads


class Grammar:
    r"""Expressions with a given number of tokens, with the probabilities that the published generator gives them.

    Arguments:
        longest: Number of tokens up to which probabilities are known.
    """

    def __init__(self, longest: int):
        # of[k][n]: the probability that k arguments have n tokens
        self.of = {k: [0.0] * (longest + 1) for k in range(1, ARGUMENTS[-1] + 1)}
        for n in range(1, longest + 1):
            inside = [self.of[k][n - 2] for k in ARGUMENTS] if n >= FEWEST_TOKENS else [0.0]
            self.of[1][n] = 1 - OPERATOR if n == 1 else OPERATOR * sum(inside) / len(ARGUMENTS)
            for k in range(2, ARGUMENTS[-1] + 1):
                self.of[k][n] = sum(self.of[1][first] * self.of[k - 1][n - first] for first in range(1, n))

    def draw(self, tokens: int, source: random.Random) -> list[str]:
        r"""An argument of that many tokens: a digit, or an expression."""
        if tokens == 1:
            return [source.choice("0123456789")]
        left, found = tokens - 2, [source.choice([*OPERATE])]
        (k,) = source.choices(ARGUMENTS, [self.of[k][left] for k in ARGUMENTS])
        for others in range(k - 1, 0, -1):
            sizes = range(1, left)
            (size,) = source.choices(sizes, [self.of[1][n] * self.of[others][left - n] for n in sizes])
            found += self.draw(size, source)
            left -= size
        return [*found, *self.draw(left, source), "]"]


@cache
def expressions(tokens: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    r"""Expressions of L tokens, 10,000 / 1,000 / 1,000, the same for every run; some may be in two splits.

    Returns:
        Numbers of the tokens ``[N, L]``, values ``[N]`` from 0 to 9, and heads ``[N, L]``, by split: as of
        :func:`parse`.
    """
    grammar, source = Grammar(tokens), random.Random(0)
    number = {token: n for n, token in enumerate(TOKENS)}
    found = {}
    for split, count in EXPRESSION_SPLITS.items():
        drawn = [grammar.draw(tokens, source) for _ in range(count)]
        values, heads = zip(*map(parse, drawn), strict=True)
        rows = torch.tensor([[number[token] for token in row] for row in drawn])
        found[split] = rows, torch.tensor(values), torch.tensor(heads)
    return found
