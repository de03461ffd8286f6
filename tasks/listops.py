import math

import torch
from torch import Tensor, nn

from hardmax.checks import at_least
from hardmax.estimators import sampling

from .base import Figure, Problem, Task
from .expressions import FEWEST_TOKENS, TOKENS, expressions
from .routing import nats

MOST_TOKENS = 100


class ListOps(Task):
    r"""A latent parser of expressions such as ``[MAX 2 9 [MIN 4 7 ] 0 ]``, which learns from their values alone.

    Each of the L - 1 tokens after the first chooses its head, one of the L tokens: K = L - 1 variables of C = L
    categories, whose logits an LSTM that reads in both directions gives. Along the chosen arcs every token then passes
    what it knows to its head, as often as expressions of this length can be nested, and from what arrives at the first
    token the value is predicted. It knows which token it is, and neither its place nor its neighbours: all of the
    structure must be in the arcs. The objective is the cross-entropy of the value in nats; nothing tells the parse.

    Expressions have exactly L tokens, with the probabilities of the published generator given that: an argument is
    an expression with probability 1/4, an operator has 2 to 5 arguments. Figures on held-out expressions:
    ``accuracy`` of the value and ``heads``, the share of tokens whose head is the operator to which they belong, both
    at the most probable heads; ``cost``, the mean of the objective at a draw. Other parses than the true one may do as
    well, in which an operator and its arguments meet elsewhere: many true heads are no end in themselves.

    The papers of 2021 to 2023 below compare estimators on other models of such expressions, the parser of Choi et al.,
    which merges two neighbours at a time and has a tree-LSTM, and on longer ones as well: accuracies are not
    comparable. That tokens choose their heads follows Paulus et al. of 2020, whose arcs form a tree: here each token
    chooses by itself, so that any estimator applies.

    References:
        | ListOps: A Diagnostic Dataset for Latent Tree Learning (Nangia and Bowman, 2018)
        | https://arxiv.org/abs/1804.06028
        | Gradient Estimation with Stochastic Softmax Tricks (Paulus et al., 2020)
        | https://arxiv.org/abs/2006.08063
        | Learning to Compose Task-Specific Tree Structures (Choi et al., 2018)
        | https://arxiv.org/abs/1707.02786
        | Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator (Paulus et al., 2021)
        | https://arxiv.org/abs/2010.04838
        | Training Discrete Deep Generative Models via Gapped Straight-Through Estimator (Fan et al., 2022)
        | https://arxiv.org/abs/2206.07235
        | Bridging Discrete and Backpropagation: Straight-Through and Beyond (Liu et al., 2023)
        | https://arxiv.org/abs/2304.08612

    Arguments:
        tokens: Number L of tokens of an expression, from 4 to 100.
        width: Of embeddings, of the LSTM in each direction, and of what tokens pass on.
    """

    figures = {
        "accuracy": Figure("accuracy", "share right", "higher"),
        "heads": Figure("heads of the true parse", "share"),
        "cost": Figure("expected cross-entropy", "nats", "lower"),
        "loss": Figure("loss", "nats"),
    }

    def __init__(self, tokens: int = 10, width: int = 64):
        super().__init__()
        if at_least(FEWEST_TOKENS, tokens=tokens) > MOST_TOKENS:
            raise ValueError(f"tokens must be from {FEWEST_TOKENS} to {MOST_TOKENS}, got {tokens}")
        self.L, width = tokens, at_least(1, width=width)
        for split, (rows, values, heads) in expressions(tokens).items():
            for name, found in (("tokens", rows), ("values", values), ("heads", heads[:, 1:])):
                self.register_buffer(f"{split}_{name}", found, persistent=False)
        self.examples = len(self.get_buffer("train_tokens"))
        self.rounds = (tokens - 1) // (
            FEWEST_TOKENS - 1
        )  # the deepest expressions have an operator more every three tokens
        self.read = nn.Embedding(len(TOKENS), width)
        self.reader = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.dependent, self.head = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.known = nn.Embedding(len(TOKENS), width)
        self.own, self.received = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)
        self.passed = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, width))
        self.answer = nn.Linear(width, 10)

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.get_buffer("train_tokens")[index], self.get_buffer("train_values")[index]

    def measurement_batch(self, size: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer("valid_tokens")[:size], self.get_buffer("valid_values")[:size]

    def problem(self, batch: tuple[Tensor, Tensor]) -> Problem:
        x, values = batch
        context = nn.functional.one_hot(x, len(TOKENS)).flatten(1).to(self.known.weight.dtype)
        return Problem(self.logits(x), lambda z: nats(self.answers(z, x), values), context=context)

    def logits(self, x: Tensor) -> Tensor:
        r"""Logits ``[N, L - 1, L]`` of the heads of all tokens but the first, for tokens x ``[N, L]``."""
        features, _ = self.reader(self.read(x))
        scores = self.dependent(features[:, 1:]) @ self.head(features).transpose(-2, -1)
        return scores / math.sqrt(self.known.embedding_dim)

    def answers(self, z: Tensor, x: Tensor) -> Tensor:
        r"""Logits of the value ``[..., N, 10]``, for heads z ``[..., N, L - 1, L]`` of tokens x ``[N, L]``."""
        own, arcs = self.own(self.known(x)), z.transpose(-2, -1)
        known = self.passed(own)
        for _ in range(self.rounds - 1):
            known = self.passed(own + self.received(arcs @ known[..., 1:, :]))
        first = own[..., 0, :] + self.received((arcs[..., :1, :] @ known[..., 1:, :]).squeeze(-2))
        return self.answer(self.passed(first))

    def encoder_parameters(self) -> list[nn.Parameter]:
        parts = (self.read, self.reader, self.dependent, self.head)
        return [parameter for part in parts for parameter in part.parameters()]

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x, values, heads = (self.get_buffer(f"{split}_{name}") for name in ("tokens", "values", "heads"))
        logits = self.logits(x)
        chosen = logits.argmax(-1)
        answers = self.answers(sampling.one_hot(chosen, logits), x).argmax(-1)
        drawn = self.answers(sampling.draw(logits, 1)[0], x)
        return {
            "accuracy": float((answers == values).float().mean()),
            "heads": float((chosen == heads).float().mean()),
            "cost": float(nats(drawn, values).mean()),
        }

    @torch.no_grad()
    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        x, values, heads = (self.get_buffer(f"test_{name}")[:20] for name in ("tokens", "values", "heads"))
        logits = self.logits(x)
        chosen = logits.argmax(-1)
        answers = self.answers(sampling.one_hot(chosen, logits), x).argmax(-1)
        words = [" ".join(TOKENS[token] for token in row) for row in x.tolist()]
        columns = {"expression": words, "value": values.tolist(), "answer": answers.tolist()}
        columns |= {"true heads": heads.tolist(), "heads": chosen.tolist()}
        rows = zip(*columns.values(), strict=True)
        return {"parses": [{name: in_words(entry) for name, entry in zip(columns, row, strict=True)} for row in rows]}


def in_words(entry: object) -> str:
    return " ".join(map(str, entry)) if isinstance(entry, list) else str(entry)
