import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hardmax.estimators import sampling

from .base import Figure
from .language import NOTHING
from .sentences import Sentences, embedded_language
from .vae import CategoricalVAE


class Text(CategoricalVAE):
    r"""Categorical autoencoder of sentences or of windows of a text: see :class:`CategoricalVAE` for most figures.

    The decoder predicts all tokens at once: given z they are independent, so that whatever one says about another
    must pass through the latent variables. Loss and figures are nats per *token*: an example's nats divided by the
    expected number of tokens of an example. Of the embedded language, whose sentences count their end, no model's
    loss on sentences that it has not seen is below its entropy per token, 1.487 nats, in expectation.

    Figures beside those of the autoencoder: ``bits``, the negative ELBO in bits per token (per character of a text);
    ``accuracy``, the share of tokens that are the most probable ones given a draw of z; where the language is known,
    ``distance``, by how much the negative ELBO exceeds that of the language itself, measured as the surplus over
    these sentences' own surprisal, whose expectation is the entropy (less noise than the entropy subtracted).

    Arguments:
        variables, categories: Numbers K and C of latent variables and of categories.
        encoder_widths, decoder_widths: Widths of the hidden layers.
        kl: ``analytic`` or ``sampled``.
        bound_samples: Draws per sentence of the figures on held-out sentences.
        data: The sentences; None for those of the embedded language.
    """

    figures = {
        "distance": Figure("distance to the language's entropy", "nats per token", "lower"),
        "elbo": Figure("ELBO, discrete draws", "nats per token", "higher"),
        "accuracy": Figure("accuracy", "share right", "higher"),
        "bound": Figure("importance-weighted bound", "nats per token", "higher"),
        "bits": Figure("code length", "bits per token", "lower"),
        "reconstruction": Figure("reconstruction error", "nats per token"),
        "kl": Figure("KL divergence", "nats per token"),
        "loss": Figure("loss", "nats per token"),
    }

    one_hot: Tensor

    def __init__(
        self,
        variables: int = 10,
        categories: int = 8,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        kl: str = "analytic",
        bound_samples: int = 100,
        data: Sentences | None = None,
    ):
        data = embedded_language() if data is None else data
        if not isinstance(data, Sentences):
            raise TypeError(f"data must be a text, got {type(data).__name__}")
        self.examples, self.places, self.vocabulary = data.examples, data.length, len(data.words)
        size = self.places * self.vocabulary
        super().__init__(size, size, variables, categories, encoder_widths, decoder_widths, kl, bound_samples)
        self.nats_divisor, self.data = data.nats_divisor, data
        if data.surprisal is None:
            self.figures = {name: figure for name, figure in self.figures.items() if name != "distance"}
        self.register_buffer("one_hot", torch.eye(self.vocabulary + 1, self.vocabulary), persistent=False)  # last: 0

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.data.batch(index)

    def held_out(self, split: str) -> Tensor:
        return self.data.held_out(split)

    def features(self, x: Tensor) -> Tensor:
        r"""One-hot words, ``[*batch, T * V]``; all zeros behind a sentence's end."""
        return self.one_hot[x].flatten(-2)

    def reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        words = self.words(z)
        x = x.expand(words.shape[:-1])
        nats = cross_entropy(words.flatten(0, -2), x.flatten(), ignore_index=NOTHING, reduction="none")
        return nats.view(x.shape).sum(-1)

    def words(self, z: Tensor) -> Tensor:
        r"""Logits of the words in all places, ``[..., T, V]``, for z ``[..., K, C]``."""
        return self.decoder(z.flatten(-2)).unflatten(-1, (self.places, self.vocabulary))

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        found, x = super().evaluate(split), self.held_out(split)
        right = (self.reconstructed(x) == x)[x != NOTHING]
        more = {"bits": -found["elbo"] / math.log(2), "accuracy": float(right.float().mean())}
        if self.data.surprisal is not None:
            more["distance"] = -found["elbo"] - float(self.data.surprisal[split].mean()) / self.nats_divisor
        return more | found

    def reconstructed(self, x: Tensor) -> Tensor:
        r"""The most probable words in all places, ``[N, T]``, given a draw of z for sentences x ``[N, T]``."""
        return self.words(sampling.draw(self.logits(self.features(x)), 1)[0]).argmax(-1)

    @torch.no_grad()
    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        x = self.held_out("test")[:20]
        pairs = zip(x, self.reconstructed(x), strict=True)
        text = self.data.text
        return {"reconstructions": [{"sentence": text(a), "reconstruction": text(b)} for a, b in pairs]}
