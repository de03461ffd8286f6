r"""What variational autoencoders with categorical latent variables have in common."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least, fraction, is_number, one_of
from hardmax.estimators import sampling
from hardmax.estimators.base import Estimator, log_prob

from .base import Figure, Problem, Task


class CategoricalVAE(Task):
    r"""Variational autoencoder with layers of K categorical latent variables.

    The objective is -log p(x | z) in nats; the KL divergence from the prior is added in closed form, or estimated
    at the draws. A subclass says what examples are: :meth:`features`, :meth:`reconstruction` and
    :meth:`held_out`.

    With L > 1 layers the model draws z_L from the prior, each lower z_l from p(z_l | z_{l+1}), and x from
    p(x | z_1); the encoder goes the other way. The cost of z_1 then includes that of the layers above, which an
    estimator of their own estimates. In closed form are the entropy of each q(z_l | z_{l-1}) and the top layer's
    divergence from the prior.

    Figures on held-out examples, with discrete draws whatever relaxation trained the model, in nats (per token for
    text): ``elbo``, the evidence lower bound, and its parts ``reconstruction``, the mean of -log p(x | z), and
    ``kl``; ``bound``, the importance-weighted bound on log p(x). They are averages over ``bound_samples`` draws
    per example, and the bound grows with their number.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
        | Importance Weighted Autoencoders (Burda et al., 2016), the bound
        | https://arxiv.org/abs/1509.00519
        | REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models (Tucker et al., 2017),
          models of one and two layers
        | https://arxiv.org/abs/1703.07370

    Arguments:
        inputs: Number of the encoder's inputs.
        outputs: Number of the decoder's outputs.
        variables: Number K of latent variables of a layer.
        categories: Number C of categories.
        encoder_widths: Widths of the hidden layers between a stochastic layer and the next; none makes it linear.
        decoder_widths: The same on the way back.
        kl: ``analytic``, or ``sampled``: log q(z) - log p(z) at the estimator's own draws.
        bound_samples: Draws per example of the figures on held-out examples.
        layers: Number L of stochastic layers.
        activation, initial_weights: Of the networks: see :func:`perceptron`.
        prior: ``uniform``, or ``learned``: logits of the top layer's prior are parameters.
        pinned: Whether the first logit of each variable is fixed at 0, so that C - 1 are free.
        test_samples: Draws per example of the figures on the test split; None: ``bound_samples``.
    """

    figures = {
        "elbo": Figure("ELBO, discrete draws", "nats", "higher"),
        "bound": Figure("importance-weighted bound", "nats", "higher"),
        "reconstruction": Figure("reconstruction error", "nats"),
        "kl": Figure("KL divergence", "nats"),
        "loss": Figure("loss", "nats"),
    }

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
        layers: int = 1,
        activation: str | float = "relu",
        prior: str = "uniform",
        pinned: bool = False,
        initial_weights: str = "fan_in",
        test_samples: int | None = None,
    ):
        super().__init__()
        self.K, self.C = at_least(1, variables=variables), at_least(1, categories=categories)
        all_at_least(1, encoder_widths=encoder_widths), all_at_least(1, decoder_widths=decoder_widths)
        self.sampled = one_of(("analytic", "sampled"), kl=kl) == "sampled"
        self.draws = draws_of(bound_samples, test_samples)
        self.pinned = one_of([True, False], pinned=pinned)
        if pinned:
            at_least(2, categories=categories)
        self.nested = at_least(1, layers=layers) - 1
        free, size = self.K * (self.C - self.pinned), self.K * self.C
        network = lambda *widths: perceptron(widths, activation, initial_weights)
        self.encoder = network(inputs, *encoder_widths, free)
        self.decoder = network(size, *decoder_widths, outputs)
        higher = range(self.nested)
        self.higher_encoders = nn.ModuleList(network(size, *encoder_widths, free) for _ in higher)
        self.higher_decoders = nn.ModuleList(network(size, *decoder_widths, free) for _ in higher)
        learned = one_of(("uniform", "learned"), prior=prior) == "learned"
        self.prior = nn.Parameter(torch.zeros(self.K, self.C)) if learned else None

    def features(self, x: Tensor) -> Tensor:
        r"""What the encoder sees of examples x ``[*batch, ...]``: ``[*batch, D]``."""
        raise NotImplementedError

    def reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        r"""-log p(x | z) in nats, ``[..., *batch]``, for z ``[..., *batch, K, C]`` and x ``[*batch, ...]``."""
        raise NotImplementedError

    def held_out(self, split: str) -> Tensor:
        r"""Examples of the ``valid`` or ``test`` split, ``[N, ...]``."""
        raise NotImplementedError

    def measurement_batch(self, size: int) -> Tensor:
        return self.held_out("valid")[:size]

    def nest(self, estimator: Estimator) -> None:
        if getattr(estimator, "relaxed_kl", False) and (self.nested or self.prior is not None):
            raise ValueError("relaxed_kl=true is for one layer with a uniform prior: its density ratio is from that")
        super().nest(estimator)

    def problem(self, batch: Tensor) -> Problem:
        features = self.features(batch)
        logits = self.logits(features)

        def objective(z: Tensor) -> Tensor:
            return self.with_higher(self.reconstruction(z, batch), z, 0)

        return Problem(logits, objective, self.penalty(logits, 0), features, self.sampled, int(self.pinned))

    def logits(self, features: Tensor) -> Tensor:
        r"""Logits ``[*batch, K, C]`` of the lowest latent variables for features ``[*batch, D]``."""
        return self.as_logits(self.encoder(features))

    def as_logits(self, outputs: Tensor) -> Tensor:
        r"""Logits ``[..., K, C]`` from what a network returns, the pinned ones added."""
        free = outputs.unflatten(-1, (self.K, self.C - self.pinned))
        return nn.functional.pad(free, (1, 0)) if self.pinned else free

    def higher_logits(self, z: Tensor, layer: int) -> Tensor:
        r"""Logits ``[..., K, C]`` of the layer above ``layer`` (from 0), given its z ``[..., K, C]``."""
        return self.as_logits(self.higher_encoders[layer](z.flatten(-2)))

    def from_higher(self, higher: Tensor, z: Tensor, layer: int) -> Tensor:
        r"""log p(z | higher) in nats, ``[...]``, of z ``[..., K, C]`` of ``layer``, given that of the layer above."""
        return log_prob(self.as_logits(self.higher_decoders[layer](higher.flatten(-2))), z)

    def with_higher(self, cost: Tensor, z: Tensor, layer: int) -> Tensor:
        r"""A cost ``[...]`` of z ``[..., K, C]`` of ``layer``, and what the layers above and the prior add to it."""
        if layer == self.nested:
            return cost + self.surprise(z) if self.sampled else cost
        logits = self.higher_logits(z, layer)

        def objective(higher: Tensor) -> Tensor:
            return self.with_higher(-self.from_higher(higher, z, layer), higher, layer + 1)

        context = z.detach().flatten(-2)
        return cost + self.inner[layer](logits, objective, context, self.sampled) + self.penalty(logits, layer + 1)

    def surprise(self, z: Tensor) -> Tensor | float:
        r"""-log p(z) in nats of the top layer under the prior, ``[...]`` or the same for all."""
        return self.K * math.log(self.C) if self.prior is None else -log_prob(self.prior, z)

    def penalty(self, logits: Tensor, layer: int) -> Tensor | float:
        r"""What is added in closed form for q of these logits ``[..., K, C]``: ``[...]``, or 0 if all is sampled."""
        if self.sampled:
            return 0.0
        return self.divergence(logits) if layer == self.nested else negative_entropy(logits)

    def divergence(self, logits: Tensor) -> Tensor:
        r"""KL divergence ``[...]`` in nats of the top layer's q from the prior, logits ``[..., K, C]``."""
        return kl_from_uniform(logits) if self.prior is None else kl_from(self.prior, logits)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x = self.held_out(split)
        logits = self.logits(self.features(x))
        draws = self.draws[split]
        # Made beforehand: small tensors kept from every draw would lie between large ones that the next could reuse.
        nats, weight = logits.new_empty(2, draws, len(x))
        for i in range(draws):
            z = sampling.draw(logits, 1)
            nats[i] = self.reconstruction(z, x)[0]
            weight[i] = self.weighted(-nats[i], logits, z.squeeze(0), 0)
        reconstruction = nats.mean()
        kl = (-nats - weight).mean() if self.nested else self.divergence(logits).mean()
        bound = (weight.logsumexp(0) - math.log(draws)).mean()
        found = {"elbo": -reconstruction - kl, "bound": bound, "reconstruction": reconstruction, "kl": kl}
        return {name: float(value) / self.nats_divisor for name, value in found.items()}

    def weighted(self, log_p: Tensor, logits: Tensor, z: Tensor, layer: int) -> Tensor:
        r"""log p(x, z) - log q(z | x) in nats ``[N]`` at a draw of ``layer``, the layers above being drawn here.

        Arguments:
            log_p: log p of what lies below z given z, less what was subtracted there, ``[N]``.
            logits, z: Of the layer, ``[N, K, C]``.
        """
        own = log_prob(logits, z)
        if layer == self.nested:
            return log_p - self.surprise(z) - own
        logits = self.higher_logits(z, layer)
        higher = sampling.draw(logits, 1)[0]
        return self.weighted(log_p - own + self.from_higher(higher, z, layer), logits, higher, layer + 1)

    @torch.no_grad()
    def generated(self, count: int) -> Tensor:
        r"""Lowest latent variables ``[N, K, C]`` of N draws of the model."""
        uniform = next(self.decoder.parameters()).new_zeros(self.K, self.C)
        prior = uniform if self.prior is None else self.prior
        z = sampling.draw(prior, count)
        for decoder in reversed(self.higher_decoders):
            z = sampling.draw(self.as_logits(decoder(z.flatten(-2))), 1)[0]
        return z


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
}


def perceptron(
    widths: Sequence[int], activation: str | float = "relu", initial_weights: str = "fan_in"
) -> nn.Sequential:
    r"""Fully connected layers of these widths with an activation between them.

    Arguments:
        widths: Of the input, the hidden layers and the output.
        activation: ``relu``, ``leaky_relu`` (of slope 0.2 below 0), ``tanh``, or the slope of another leaky ReLU.
        initial_weights: ``fan_in``, PyTorch's own: uniform within the inverse root of the number of inputs, biases
            too; or ``glorot``, TensorFlow's: uniform within the root of 6 over inputs plus outputs, biases 0.

    Raises:
        ValueError: If a width is no positive integer, or another argument none of these.
    """
    between = activation_layer(activation)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(at_least(1, width=before), at_least(1, width=after))
        layers += [initialised(linear, initial_weights), between()]
    return nn.Sequential(*layers[:-1])


def activation_layer(activation: str | float) -> Callable[[], nn.Module]:
    r"""What makes the layer that :func:`perceptron` knows by this name or slope; ValueError if there is none."""
    if is_number(activation):
        slope = fraction(activation=activation)
        return lambda: nn.LeakyReLU(slope)
    return ACTIVATIONS[one_of(ACTIVATIONS, activation=activation)]


def initialised(layer: nn.Linear | nn.modules.conv._ConvNd, initial_weights: str) -> nn.Module:
    r"""A layer as PyTorch makes it, with the weights and biases that :func:`perceptron` knows by this name."""
    if one_of(("fan_in", "glorot"), initial_weights=initial_weights) == "glorot":
        assert layer.bias is not None
        nn.init.xavier_uniform_(layer.weight), nn.init.zeros_(layer.bias)
    return layer


def draws_of(bound_samples: int, test_samples: int | None) -> dict[str, int]:
    r"""Draws per example of the figures on held-out examples, by split; None: as many on the test as elsewhere."""
    valid = at_least(1, bound_samples=bound_samples)
    return {"valid": valid, "test": valid if test_samples is None else at_least(1, test_samples=test_samples)}


def negative_entropy(logits: Tensor) -> Tensor:
    r"""Minus the entropy ``[*batch]`` in nats of K categorical variables, logits ``[*batch, K, C]``."""
    log_p = logits.log_softmax(-1)
    return (log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum((-2, -1))  # 0 at a probability of 0


def kl_from_uniform(logits: Tensor) -> Tensor:
    r"""KL divergence ``[*batch]`` in nats of K categorical variables from uniform ones, logits ``[*batch, K, C]``."""
    return negative_entropy(logits) + logits.shape[-2] * math.log(logits.shape[-1])


def kl_from(prior: Tensor, logits: Tensor) -> Tensor:
    r"""KL divergence ``[*batch]`` in nats of K categorical variables, logits ``[*batch, K, C]``, from a prior."""
    log_p = logits.log_softmax(-1)
    return negative_entropy(logits) - (log_p.exp() * prior.log_softmax(-1)).sum((-2, -1))
