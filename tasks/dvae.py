import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from estimators import sampling
from estimators.base import at_least, log_prob, one_of
from tasks.base import Problem, Task
from tasks.digits import digits


class DiscreteVAE(Task):
    r"""Variational autoencoder of binary images with K categorical latent variables under a uniform prior.

    The objective is the negative log-likelihood of the image, in nats; the KL divergence from the prior is
    added in closed form, or estimated at the draws. Training images are binarised anew each time they are
    seen (a pixel is 1 with its grey level as probability), held-out images once and for all.

    Figures, in nats per image, with discrete draws whatever relaxation trained the model: ``elbo``, the
    evidence lower bound, and ``bound``, the importance-weighted bound on log p(x); both are averages over
    ``bound_samples`` draws per image, and the bound grows with their number.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
        | Importance Weighted Autoencoders (Burda et al., 2016), the bound
        | https://arxiv.org/abs/1509.00519

    Arguments:
        variables: Number K of latent variables.
        categories: Number C of categories.
        encoder_widths: Widths of the encoder's hidden layers.
        decoder_widths: Widths of the decoder's hidden layers.
        kl: ``analytic``, or ``sampled``: log q(z) - log p(z) at the estimator's own draws.
        bound_samples: Draws per image of the figures on held-out images.
    """

    def __init__(
        self,
        variables: int = 20,
        categories: int = 10,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        kl: str = "analytic",
        bound_samples: int = 100,
    ):
        super().__init__()
        self.K, self.C = at_least(1, variables=variables), at_least(1, categories=categories)
        self.sampled = one_of(("analytic", "sampled"), kl=kl) == "sampled"
        self.bound_samples = at_least(1, bound_samples=bound_samples)
        images = digits()
        self.examples, pixels = images["train"].shape
        for split, grey in images.items():
            fixed = grey if split == "train" else grey.bernoulli(generator=torch.Generator().manual_seed(1))
            self.register_buffer(f"{split}_images", fixed, persistent=False)
        self.encoder = perceptron([pixels, *encoder_widths, self.K * self.C])
        self.decoder = perceptron([self.K * self.C, *decoder_widths, pixels])

    def batch(self, index, generator):
        return self.train_images[index].bernoulli(generator=generator)

    def held_aside(self, size):
        return self.valid_images[:size]

    def problem(self, batch):
        logits = self.logits(batch)

        def objective(z):
            cost = self.reconstruction(z, batch)
            return cost + self.K * math.log(self.C) if self.sampled else cost

        penalty = 0.0 if self.sampled else kl_from_uniform(logits)
        return Problem(logits, objective, penalty, context=batch, log_q=self.sampled)

    def logits(self, x: Tensor) -> Tensor:
        r"""Logits ``[*batch, K, C]`` of the latent variables of images ``[*batch, D]``."""
        return self.encoder(x).unflatten(-1, (self.K, self.C))

    def reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        r"""-log p(x | z) in nats, ``[..., *batch]``, for z ``[..., *batch, K, C]`` and x ``[*batch, D]``."""
        pixels = self.decoder(z.flatten(-2))
        return binary_cross_entropy_with_logits(pixels, x.expand_as(pixels), reduction="none").sum(-1)

    def encoder_parameters(self):
        return list(self.encoder.parameters())

    @torch.no_grad()
    def evaluate(self, split):
        x = getattr(self, f"{split}_images")
        logits = self.logits(x)
        likelihood, weight = [], []
        for _ in range(self.bound_samples):
            z = sampling.draw(logits, 1)
            likelihood.append(-self.reconstruction(z, x)[0])
            weight.append(likelihood[-1] - self.K * math.log(self.C) - log_prob(logits, z)[0])
        elbo = torch.stack(likelihood).mean(0) - kl_from_uniform(logits)
        bound = torch.stack(weight).logsumexp(0) - math.log(self.bound_samples)
        return {"elbo": float(elbo.mean()), "bound": float(bound.mean())}


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
    log_p = logits.log_softmax(-1)
    plogp = log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)
    return plogp.sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])
