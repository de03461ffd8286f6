r"""Texts as sequences of tokens of one length, by split."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hardmax.checks import at_least

from .data.files import load
from .data.formats import Malformed, unpacked
from .language import NOTHING, corpus, language

HELD_OUT = 20  # one in so many characters is for validation, as many are for the test, at the end of a text


class Sentences(nn.Module):
    r"""Sequences of T tokens, cut out of longer ones, and what they mean.

    Arguments:
        tokens: By split, ``[N]`` or, for sequences that are no part of a longer one, ``[N, T]``; -1 is no token.
        length: Number T of tokens of a sequence.
        words: Of the tokens.
        nats_divisor: Expected number of tokens of a sequence.
        text: Of tokens ``[T]``, for people to read.
        surprisal: Minus the log-probability of sequences under the language ``[N]`` in nats, by split; None if it
            is not known.

    Raises:
        ValueError: If tokens are of another shape, or not among the words.
    """

    train_tokens: Tensor
    places: Tensor

    def __init__(
        self,
        tokens: dict[str, Tensor],
        length: int,
        words: list[str],
        nats_divisor: float,
        text: Callable[[Tensor], str],
        surprisal: dict[str, Tensor] | None = None,
    ):
        super().__init__()
        self.length, self.words, self.nats_divisor = length, words, nats_divisor
        self.text, self.surprisal = text, surprisal
        for split, found in tokens.items():
            check_tokens(split, found, length, len(words))
            self.register_buffer(f"{split}_tokens", found, persistent=False)
        self.register_buffer("places", torch.arange(length), persistent=False)

    @property
    def examples(self) -> int:
        r"""Number of training sequences; those of a longer text begin at every token of it."""
        tokens = self.train_tokens
        return len(tokens) if tokens.ndim == 2 else len(tokens) - self.length + 1

    def batch(self, index: Tensor) -> Tensor:
        r"""Training sequences of the indices ``[B]``: ``[B, T]``."""
        tokens = self.train_tokens
        return tokens[index] if tokens.ndim == 2 else tokens[index.unsqueeze(-1) + self.places]

    def held_out(self, split: str) -> Tensor:
        r"""Sequences of the ``valid`` or ``test`` split that do not overlap, ``[N, T]``."""
        tokens = self.get_buffer(f"{split}_tokens")
        return tokens if tokens.ndim == 2 else tokens[: len(tokens) // self.length * self.length].view(-1, self.length)


def check_tokens(split: str, tokens: Tensor, length: int, words: int) -> None:
    r"""Refuses what are neither sequences of ``length`` tokens nor a text that has one."""
    whole = tokens.ndim == 1 and len(tokens) >= length
    if not whole and (tokens.ndim != 2 or tokens.shape[1] != length or not len(tokens)):
        raise ValueError(f"{split} tokens must be [N], N at least {length}, or [N, {length}], got {list(tokens.shape)}")
    low, high = tokens.min().item(), tokens.max().item()
    if tokens.is_floating_point() or low < (0 if whole else NOTHING) or high >= words:
        kind = str(tokens.dtype).removeprefix("torch.")
        raise ValueError(f"{split} tokens must be integers below the {words} words, got {kind} from {low} to {high}")


def embedded_language() -> Sentences:
    r"""Sentences of a small language whose probabilities are known: see :mod:`hardmax.tasks.language`."""
    found, source = corpus(), language()
    tokens, surprisal = ({split: pair[n] for split, pair in found.items()} for n in (0, 1))
    return Sentences(tokens, tokens["train"].shape[1], source.words, source.tokens(), source.text, surprisal)


def tiny_shakespeare(folder: str | None = None, length: int = 32) -> Sentences:
    r"""Windows of some of Shakespeare's plays, 1,115,394 characters of 65 kinds; the last tenth is held out.

    References:
        | The Unreasonable Effectiveness of Recurrent Neural Networks (Karpathy, 2015)
        | https://karpathy.github.io/2015/05/21/rnn-effectiveness

    Arguments:
        folder: Where to look first for the file.
        length: Characters of a window.
    """
    return windows(torch.tensor(load("tiny_shakespeare", folder)), length)


def own_text(file: str | None, length: int = 32) -> Sentences:
    r"""Windows of a text of the user's own, in UTF-8; kinds of characters are the words, the last tenth is held out.

    Arguments:
        file: Path of the text, gzipped or not.
        length: Characters of a window.

    Raises:
        ValueError: If there is no such file, it is no such text, or held-out splits are shorter than a window.
    """
    at_least(1, length=length)
    if not isinstance(file, str) or not os.path.isfile(file):
        raise ValueError(f"data.file={file}: there is no such file; accepted is a text in UTF-8, gzipped or not")
    try:
        content = unpacked(Path(file)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"data.file={file}: {error}; accepted is a text in UTF-8, gzipped or not") from None
    except (Malformed, OSError) as error:
        raise ValueError(f"data.file={file}: {error}") from None
    return windows(torch.from_numpy(np.frombuffer(content.encode("utf-32-le"), "<i4").copy()), length)


def windows(characters: Tensor, length: int) -> Sentences:
    r"""Windows of ``length`` characters of a text, given as their code points ``[N]``."""
    known, tokens = characters.unique(return_inverse=True)
    words = [chr(point) for point in known.tolist()]
    held = len(tokens) // HELD_OUT
    if at_least(1, length=length) > held:
        raise ValueError(
            f"length={length} needs a text of at least {HELD_OUT * length} characters, as a twentieth of them is for "
            f"validation and as many for the test; this one has {len(tokens)}"
        )
    parts = dict(zip(("train", "valid", "test"), tokens.split([len(tokens) - 2 * held, held, held]), strict=True))
    return Sentences(parts, length, words, length, lambda row: "".join(words[t] for t in row.tolist()))
