r"""What variational autoencoders with categorical latent variables have in common."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from estimators import sampling
from estimators.base import at_least, log_prob, one_of
from tasks.base import Problem, Task


class CategoricalVAE(Task):
    r"""Variational autoencoder with K categorical latent variables under a uniform prior.

    The objective is -log p(x | z) in nats; the KL divergence from the prior is added in closed form, or estimated
    at the draws. A subclass says what examples are: :meth:`features`, :meth:`reconstruction` and
    :meth:`held_out`.

    Figures on held-out examples, with discrete draws whatever relaxation trained the model, in nats (per token for
    text): ``elbo``, the evidence lower bound, and its parts ``reconstruction``, the mean of -log p(x | z), and
    ``kl``; ``bound``, the importance-weighted bound on log p(x). They are averages over ``bound_samples`` draws
    per example, and the bound grows with their number.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
        | Importance Weighted Autoencoders (Burda et al., 2016), the bound
        | https://arxiv.org/abs/1509.00519

    Arguments:
        inputs: Number of the encoder's inputs.
        outputs: Number of the decoder's outputs.
        variables: Number K of latent variables.
        categories: Number C of categories.
        encoder_widths: Widths of the encoder's hidden layers.
        decoder_widths: Widths of the decoder's hidden layers.
        kl: ``analytic``, or ``sampled``: log q(z) - log p(z) at the estimator's own draws.
        bound_samples: Draws per example of the figures on held-out examples.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        variables: int,
        categories: int,
        encoder_widths: Sequence[int],
        decoder_widths: Sequence[int],
        kl: str,
        bound_samples: int,
    ):
        super().__init__()
        self.K, self.C = at_least(1, variables=variables), at_least(1, categories=categories)
        self.sampled = one_of(("analytic", "sampled"), kl=kl) == "sampled"
        self.bound_samples = at_least(1, bound_samples=bound_samples)
        self.encoder = perceptron([inputs, *encoder_widths, self.K * self.C])
        self.decoder = perceptron([self.K * self.C, *decoder_widths, outputs])

    def features(self, x: Tensor) -> Tensor:
        r"""What the encoder sees of examples x ``[*batch, ...]``: ``[*batch, D]``."""
        raise NotImplementedError

    def reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        r"""-log p(x | z) in nats, ``[..., *batch]``, for z ``[..., *batch, K, C]`` and x ``[*batch, ...]``."""
        raise NotImplementedError

    def held_out(self, split: str) -> Tensor:
        r"""Examples of the ``valid`` or ``test`` split, ``[N, ...]``."""
        raise NotImplementedError

    def held_aside(self, size):
        return self.held_out("valid")[:size]

    def problem(self, batch):
        features = self.features(batch)
        logits = self.logits(features)

        def objective(z):
            cost = self.reconstruction(z, batch)
            return cost + self.K * math.log(self.C) if self.sampled else cost

        penalty = 0.0 if self.sampled else kl_from_uniform(logits)
        return Problem(logits, objective, penalty, context=features, log_q=self.sampled)

    def logits(self, features: Tensor) -> Tensor:
        r"""Logits ``[*batch, K, C]`` of the latent variables for features ``[*batch, D]``."""
        return self.encoder(features).unflatten(-1, (self.K, self.C))

    def encoder_parameters(self):
        return list(self.encoder.parameters())

    @torch.no_grad()
    def evaluate(self, split):
        x = self.held_out(split)
        logits = self.logits(self.features(x))
        nats, weight = [], []
        for _ in range(self.bound_samples):
            z = sampling.draw(logits, 1)
            nats.append(self.reconstruction(z, x)[0])
            weight.append(-nats[-1] - self.K * math.log(self.C) - log_prob(logits, z)[0])
        reconstruction, kl = torch.stack(nats).mean(), kl_from_uniform(logits).mean()
        bound = (torch.stack(weight).logsumexp(0) - math.log(self.bound_samples)).mean()
        found = {"elbo": -reconstruction - kl, "bound": bound, "reconstruction": reconstruction, "kl": kl}
        return {name: float(value) / self.per for name, value in found.items()}


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    r"""Fully connected layers of these widths with ReLU between them.

    Raises:
        ValueError: If a width is no positive integer.
    """
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(at_least(1, width=before), at_least(1, width=after)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def kl_from_uniform(logits: Tensor) -> Tensor:
    r"""KL divergence ``[*batch]`` in nats of K categorical variables from uniform ones, logits ``[*batch, K, C]``."""
    log_p = sampling.log_softmax(logits)
    plogp = log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)  # 0 at a probability of 0
    return plogp.sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])
