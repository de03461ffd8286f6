from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from estimators import sampling
from tasks.language import NOTHING, corpus, language
from tasks.vae import CategoricalVAE


class Text(CategoricalVAE):
    r"""Categorical autoencoder of the sentences of a small language: see :class:`CategoricalVAE` for most figures.

    The decoder predicts all words at once: given z they are independent, so that whatever one word says about
    another must pass through the latent variables. Loss and figures are nats per *token*: an example's nats
    divided by the expected number of tokens of a sentence, its end included. No model's loss is below the
    language's entropy per token, 1.487 nats, in expectation.

    Figures beside those of the autoencoder: ``distance``, by how much the negative ELBO exceeds that of the
    language itself, measured as the surplus over these sentences' own surprisal, whose expectation is the entropy
    (less noise than the entropy subtracted); ``accuracy``, the share of tokens that are the most probable ones
    given a draw of z.

    Arguments:
        variables, categories: Numbers K and C of latent variables and of categories.
        encoder_widths, decoder_widths: Widths of the hidden layers.
        kl: ``analytic`` or ``sampled``.
        bound_samples: Draws per sentence of the figures on held-out sentences.
    """

    def __init__(
        self,
        variables: int = 10,
        categories: int = 8,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        kl: str = "analytic",
        bound_samples: int = 100,
    ):
        sentences = corpus()
        self.examples, self.places = sentences["train"][0].shape
        self.vocabulary = len(language().words)
        size = self.places * self.vocabulary
        super().__init__(size, size, variables, categories, encoder_widths, decoder_widths, kl, bound_samples)
        self.per = language().tokens()
        self.register_buffer("one_hot", torch.eye(self.vocabulary + 1, self.vocabulary), persistent=False)  # last: 0
        for split, (tokens, surprisal) in sentences.items():
            self.register_buffer(f"{split}_tokens", tokens, persistent=False)
            self.register_buffer(f"{split}_surprisal", surprisal, persistent=False)

    def batch(self, index, generator):
        return self.train_tokens[index]

    def held_out(self, split):
        return getattr(self, f"{split}_tokens")

    def features(self, x):
        r"""One-hot words, ``[*batch, T * V]``; all zeros behind a sentence's end."""
        return self.one_hot[x].flatten(-2)

    def reconstruction(self, z, x):
        words = self.words(z)
        x = x.expand(words.shape[:-1])
        nats = cross_entropy(words.flatten(0, -2), x.flatten(), ignore_index=NOTHING, reduction="none")
        return nats.view(x.shape).sum(-1)

    def words(self, z):
        r"""Logits of the words in all places, ``[..., T, V]``, for z ``[..., K, C]``."""
        return self.decoder(z.flatten(-2)).unflatten(-1, (self.places, self.vocabulary))

    @torch.no_grad()
    def evaluate(self, split):
        found, x = super().evaluate(split), self.held_out(split)
        surprisal = float(getattr(self, f"{split}_surprisal").mean()) / self.per
        right = (self.reconstructed(x) == x)[x != NOTHING]
        return {"distance": -found["elbo"] - surprisal, "accuracy": float(right.float().mean()), **found}

    def reconstructed(self, x):
        r"""The most probable words in all places, ``[N, T]``, given a draw of z for sentences x ``[N, T]``."""
        return self.words(sampling.draw(self.logits(self.features(x)), 1)[0]).argmax(-1)

    @torch.no_grad()
    def show(self):
        x = self.held_out("test")[:20]
        text = language().text
        pairs = zip(x, self.reconstructed(x), strict=True)
        return {"reconstructions": [{"sentence": text(a), "reconstruction": text(b)} for a, b in pairs]}
