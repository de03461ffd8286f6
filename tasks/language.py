r"""A small language whose probabilities are known: sentences of a probabilistic context-free grammar."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

# Every symbol becomes one of its right-hand sides, with the probability in front. Subject and verb agree in number,
# so that distant words depend on each other. No sentence has two derivations.
GRAMMAR = {
    "sentence": {"subject verb-phrase": 0.6, "subjects verbs-phrase": 0.4},
    "subject": {"determiner noun": 0.7, "determiner adjective noun": 0.3},
    "subjects": {"determiners nouns": 0.7, "determiners adjective nouns": 0.3},
    "object": {"subject": 0.5, "subjects": 0.5},
    "verb-phrase": {"transitive object": 0.5, "intransitive": 0.3, "intransitive place": 0.2},
    "verbs-phrase": {"transitives object": 0.5, "intransitives": 0.3, "intransitives place": 0.2},
    "place": {"preposition object": 1.0},
    "determiner": {"the": 0.4, "a": 0.4, "this": 0.2},
    "determiners": {"the": 0.4, "some": 0.35, "these": 0.25},
    "adjective": {"old": 0.3, "small": 0.3, "red": 0.2, "quiet": 0.2},
    "noun": {"dog": 0.3, "cat": 0.3, "bird": 0.2, "child": 0.2},
    "nouns": {"dogs": 0.3, "cats": 0.3, "birds": 0.2, "children": 0.2},
    "transitive": {"sees": 0.4, "hears": 0.3, "follows": 0.3},
    "transitives": {"see": 0.4, "hear": 0.3, "follow": 0.3},
    "intransitive": {"sleeps": 0.5, "sings": 0.5},
    "intransitives": {"sleep": 0.5, "sing": 0.5},
    "preposition": {"near": 0.5, "with": 0.5},
}
END, NOTHING = 0, -1  # the token after a sentence's last word, and what fills the places behind it
LANGUAGE_SPLITS = {"train": 20_000, "valid": 1_000, "test": 1_000}


@dataclass
class Language:
    r"""All sentences of the grammar.

    Attributes:
        words: Words by token; token 0 ends a sentence.
        sentences: Tokens of every sentence, ``[N, T]``, filled up with -1 behind the end.
        log_p: Log-probability of each in nats, ``[N]``, float64.
    """

    words: list[str]
    sentences: Tensor
    log_p: Tensor

    def entropy(self) -> float:
        r"""Entropy of a sentence, in nats."""
        return float(-(self.log_p.exp() * self.log_p).sum())

    def tokens(self) -> float:
        r"""Expected number of tokens of a sentence, its end included."""
        return float(self.log_p.exp() @ (self.sentences != NOTHING).sum(-1).double())

    def text(self, sentence: Tensor) -> str:
        r"""The words of the tokens ``[T]`` before the end."""
        tokens = sentence.tolist()
        return " ".join(self.words[t] for t in (tokens[: tokens.index(END)] if END in tokens else tokens))


@cache
def language() -> Language:
    r"""The language of :data:`GRAMMAR`, by listing every derivation."""
    listed = [(words.split(), p) for words, p in derivations("sentence")]
    words = ["end of sentence", *sorted({word for sentence, _ in listed for word in sentence})]
    token = {word: t for t, word in enumerate(words)}
    places = 1 + max(len(sentence) for sentence, _ in listed)
    rows = [[*(token[w] for w in s), END, *[NOTHING] * (places - 1 - len(s))] for s, _ in listed]
    return Language(words, torch.tensor(rows), torch.tensor([math.log(p) for _, p in listed], dtype=torch.float64))


def derivations(text: str) -> Iterator[tuple[str, float]]:
    r"""All strings of words that the symbols in ``text`` can become, each with its probability."""
    head, _, rest = text.partition(" ")
    starts = [(head, 1.0)]
    if head in GRAMMAR:
        starts = [(s, p * q) for side, p in GRAMMAR[head].items() for s, q in derivations(side)]
    if not rest:
        yield from starts
        return
    ends = list(derivations(rest))
    for start, p in starts:
        yield from ((f"{start} {end}", p * q) for end, q in ends)


def corpus() -> dict[str, tuple[Tensor, Tensor]]:
    r"""Sentences drawn from the language, 20,000 / 1,000 / 1,000, the same for every run.

    Returns:
        Tokens ``[N, T]`` and surprisals (minus the log-probability under the language, in nats) ``[N]``, by split.
    """
    source = language()
    generator = torch.Generator().manual_seed(0)
    index = torch.multinomial(source.log_p.exp(), sum(LANGUAGE_SPLITS.values()), replacement=True, generator=generator)
    parts = index.split(list(LANGUAGE_SPLITS.values()))
    return {s: (source.sentences[i], -source.log_p[i].float()) for s, i in zip(LANGUAGE_SPLITS, parts, strict=True)}
