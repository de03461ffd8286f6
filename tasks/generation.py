import sys

import torch
from torch import Tensor, nn

from hardmax.checks import at_least, positive
from hardmax.estimators import sampling

from .base import Figure, Problem, Task

FRAMES = 30  # of the interpreter that one nested estimator may need, at most


class MarkovChain(nn.Module):
    r"""A language of sentences of fixed length in which every word depends on the one before it.

    Every sentence has a positive probability. The logits of the first word, and of each word after each other, are
    drawn from a normal distribution, the same every time.

    Arguments:
        vocabulary: Number V of words.
        sharpness: Standard deviation of the logits, above 0: the larger, the rarer most sentences.
    """

    first: Tensor
    after: Tensor

    def __init__(self, vocabulary: int, sharpness: float):
        super().__init__()
        logits = sharpness * torch.randn(vocabulary + 1, vocabulary, generator=torch.Generator().manual_seed(0))
        log_p = logits.log_softmax(-1)
        self.register_buffer("first", log_p[0], persistent=False)
        self.register_buffer("after", log_p[1:], persistent=False)

    def log_p(self, word: Tensor) -> Tensor:
        r"""Log-probabilities of the next word ``[..., V]`` after a one-hot or relaxed word ``[..., V]``."""
        return word @ self.after


class Generation(Task):
    r"""A recurrent model writes sentences word by word; a known language judges them.

    Every word is one categorical variable of V categories, whose draw conditions the next word: the cost of a word
    is what the rest of the sentence costs, which an estimator of its own estimates, one for each place. The loss is
    the KL divergence of the model from the language in nats per sentence, 0 at best: the sum over places of the
    analytic divergence of the next word, along the prefixes that were drawn. The last word, which conditions none, is
    not drawn. Estimators that evaluate S draws with gradients evaluate the last of them :math:`S^{T-1}` times: for
    whole sentences compared with each other there is REINFORCE with one draw and ``baseline=batch``.

    Statistics of gradients are to the model's parameters, through all places. Figure: ``kl``, exact where at most
    :data:`Generation.ENUMERATED` sentences are possible, else a mean over ``samples`` drawn sentences.

    References:
        | Sequence Level Training with Recurrent Neural Networks (Ranzato et al., 2016)
        | https://arxiv.org/abs/1511.06732
        | GANS for Sequences of Discrete Elements with the Gumbel-softmax Distribution (Kusner and Hernandez-Lobato,
          2016), sentences through a relaxation
        | https://arxiv.org/abs/1611.04051

    Arguments:
        length: Number T of words of a sentence.
        vocabulary: Number V of words to choose from.
        width: Of the recurrent state.
        sharpness: Of the language: see :class:`MarkovChain`.
        samples: Sentences drawn for the figure.
    """

    ENUMERATED = 4096
    figures = {
        "kl": Figure("KL divergence of the model from the language", "nats per sentence", "lower"),
        "loss": Figure("loss", "nats per sentence"),
    }

    def __init__(
        self, length: int = 10, vocabulary: int = 8, width: int = 64, sharpness: float = 2.0, samples: int = 1000
    ):
        super().__init__()
        self.T, self.V = at_least(1, length=length), at_least(1, vocabulary=vocabulary)
        self.samples = at_least(1, samples=samples)
        self.nested = max(self.T - 2, 0)
        self.language = MarkovChain(self.V, positive(sharpness=sharpness))
        self.state = nn.Parameter(torch.zeros(at_least(1, width=width)))
        self.cell = nn.GRUCell(self.V, width)
        self.word = nn.Linear(width, self.V)
        self.parameters_only = True
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + FRAMES * self.T))

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return index

    def measurement_batch(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.long, device=self.state.device)

    def problem(self, batch: Tensor) -> Problem:
        state = self.state.expand(len(batch), -1)
        logits = self.logits(state)
        penalty = divergence(logits, self.language.first)
        return Problem(logits, lambda z: self.rest(z, state, 1), penalty, context=state)

    def logits(self, state: Tensor) -> Tensor:
        r"""Logits ``[..., 1, V]`` of the next word in a state ``[..., H]``."""
        return self.word(state).unsqueeze(-2)

    def next_state(self, word: Tensor, state: Tensor) -> Tensor:
        r"""The state ``[..., H]`` after a one-hot or relaxed word ``[..., V]``."""
        flat = self.cell(word.reshape(-1, self.V), state.reshape(-1, state.shape[-1]))
        return flat.view(*word.shape[:-1], -1)

    def rest(self, z: Tensor, state: Tensor, place: int) -> Tensor:
        r"""What the words from ``place`` on cost, after a word z in the place before: ``[S, *batch]`` in nats.

        All dimensions before the last of the batch are folded into one, so that their number does not grow with the
        length, and examples of other copies stay apart.

        Arguments:
            z: ``[S, *batch, 1, V]``.
            state: In which z was chosen, ``[*batch, H]``.
            place: From 1; T is the end.
        """
        if place == self.T:
            return 0 * z.sum((-2, -1))
        word = z.squeeze(-2)
        *copies, B, _ = word.shape
        state = state.expand(*copies, B, -1)
        word, state = (x.reshape(-1, B, x.shape[-1]) for x in (word, state))
        state = self.next_state(word, state)
        logits = self.logits(state)
        cost = divergence(logits, self.language.log_p(word))
        if place < self.T - 1:
            cost = cost + self.inner[place - 1](logits, lambda z: self.rest(z, state, place + 1), state.detach())
        return cost.view(*copies, B)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def expected_cost(self, logits: Tensor) -> Tensor | None:
        r"""Exact loss ``[*batch]`` less the first word's divergence, where all sentences can be listed, else None."""
        if self.V**self.T > self.ENUMERATED:
            return None
        return (self.exact_kl() - divergence(self.logits(self.state), self.language.first)).expand(logits.shape[:-2])

    def exact_kl(self) -> Tensor:
        r"""KL divergence of the model from the language in nats, a scalar, by the sum over all sentences."""
        state, log_p, log_q = self.state.unsqueeze(0), self.state.new_zeros(1), self.state.new_zeros(1)
        following = self.language.first.unsqueeze(0)
        words = torch.eye(self.V, device=self.state.device, dtype=self.state.dtype)
        for _ in range(self.T):  # all prefixes [N] become all prefixes of one word more [N * V]
            log_p = (log_p.unsqueeze(-1) + self.logits(state).squeeze(-2).log_softmax(-1)).flatten()
            log_q = (log_q.unsqueeze(-1) + following).flatten()
            word = words.repeat(len(state), 1)
            state = self.next_state(word, state.repeat_interleave(self.V, 0))
            following = self.language.log_p(word)
        return (log_p.exp() * (log_p - log_q)).sum()

    @torch.no_grad()
    def sentences(self, count: int) -> tuple[Tensor, Tensor]:
        r"""Words ``[N, T]`` of sentences that the model writes, and the divergences along each, summed, ``[N]``."""
        state, following = self.state.expand(count, -1), self.language.first
        words, kl = [], self.state.new_zeros(count)
        for _ in range(self.T):
            logits = self.logits(state)
            kl = kl + divergence(logits, following)
            word = sampling.draw(logits, 1)[0].squeeze(-2)
            words.append(word.argmax(-1))
            state, following = self.next_state(word, state), self.language.log_p(word)
        return torch.stack(words, -1), kl

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        exact = self.V**self.T <= self.ENUMERATED
        return {"kl": float(self.exact_kl() if exact else self.sentences(self.samples)[1].mean())}

    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        words, _ = self.sentences(20)
        return {"sentences": [{"sentence": " ".join(map(str, row))} for row in words.tolist()]}


def divergence(logits: Tensor, log_q: Tensor) -> Tensor:
    r"""KL divergence in nats ``[...]`` of a word's distribution, logits ``[..., 1, V]``, from log q ``[..., V]``."""
    log_p = logits.squeeze(-2).log_softmax(-1)
    return (log_p.exp() * (log_p.clamp(min=torch.finfo(log_p.dtype).min) - log_q)).sum(-1)
