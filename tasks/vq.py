from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least, fraction, is_number, one_of, positive
from hardmax.estimators import StraightThrough, sampling
from hardmax.estimators.base import Estimator, straight_through

from .base import Figure, Problem, Task
from .convolutions import features_of, is_convolutional, to_features, to_pixels
from .data import Images, images_only
from .dvae import GRID, grid
from .vae import perceptron

AT_ONCE = 1000  # images that are evaluated at a time
LEAST_DIVISOR = 1e-6  # length of a vector, and weight of a code, that is divided by


class VectorQuantised(Task):
    r"""Vector-quantised autoencoder of images: each of K vectors of an image becomes one of C codes.

    The encoder gives K vectors :math:`e_k` of D numbers. The logits of variable k are
    :math:`-\lVert e_k - c_j \rVert^2 / \tau`, j counting the codes, so that the nearest code is the most probable one,
    and the decoder sees z @ codebook. The objective is the squared error of the pixels, summed over the image. To it
    come, of each vector's nearest code c whatever was drawn, the codebook loss :math:`\lVert c - e \rVert^2`, whose
    gradient goes to the code, and the commitment :math:`\beta \lVert e - c \rVert^2`, whose gradient goes to the
    vector. They are no part of a likelihood, so that estimators of bounds are refused.

    With ``gradient=copied`` or ``rotated`` the gradient goes through the vectors, and no estimator is asked: the
    decoder sees the nearest codes, the objective is 0, and all of the loss is a penalty. Such a run is one of
    ``estimator=straight_through``, which would choose the same codes; any other is refused, as it would change nothing,
    and statistics of the estimator's gradient are 0. The reconstruction then teaches nothing to the codes.

    Figures on held-out images: ``reconstruction``, the mean squared error of a pixel with nearest codes, and ``drawn``,
    with codes drawn from the logits' softmax, which is what estimators that draw have lowered (absent where no
    estimator is asked); ``codes``, how many codes are nearest to any vector at all; ``perplexity``, the exponential of
    the entropy of how often each is: C if all are used alike, 1 if one is used alone. The loss is per pixel as well.
    A pixel in colour counts as three. Grey levels are reconstructed with ``data.binarisation=none``; otherwise their
    noise is, too.

    References:
        | Neural Discrete Representation Learning (van den Oord et al., 2017), the copied gradient, the losses, and in
          its Appendix A.1 the moving average
        | https://arxiv.org/abs/1711.00937
        | Restructuring Vector Quantization with the Rotation Trick (Fifty et al., 2024), the rotated gradient
        | https://arxiv.org/abs/2410.06424
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), an estimator used in its place
        | https://arxiv.org/abs/1611.01144

    Arguments:
        variables, categories: Numbers K of vectors of an image and C of codes.
        dimensions: Number D of a vector's entries.
        encoder_widths, decoder_widths: Widths of the hidden layers.
        gradient: How it comes to the encoder. ``estimator``: by the run's; ``copied``: the one at the code is the one
            at the vector; ``rotated``: turned and stretched as the vector would have to be to become its code.
        temperature: Divides the squared distances, above 0.
        commitment: Weight :math:`\beta` of the commitment, at least 0.
        codebook_decay: None: the codes are parameters, which the codebook loss trains; or from 0 up to but not
            including 1: each is the moving average of the vectors that it is nearest to, with this decay per optimiser
            step, and there is no codebook loss.
        activation, initial_weights: See :func:`hardmax.tasks.vae.perceptron`.
        network: ``perceptron``, or ``convolutional``: two convolutions before the encoder's layers and two transposed
            ones after the decoder's, which halve and double height and width.
        data: The images; None for the embedded digits.
    """

    figures = {
        "reconstruction": Figure("reconstruction error, nearest codes", "squared error per pixel", "lower"),
        "drawn": Figure("reconstruction error, drawn codes", "squared error per pixel", "lower"),
        "codes": Figure("codes in use", "codes", "higher"),
        "perplexity": Figure("perplexity of the codes", "codes", "higher"),
        "loss": Figure("loss", "squared error per pixel"),
    }

    codebook: Tensor
    weights: Tensor

    def __init__(
        self,
        variables: int = 16,
        categories: int = 64,
        dimensions: int = 16,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        gradient: str = "estimator",
        temperature: float = 0.1,
        commitment: float = 0.25,
        codebook_decay: float | None = None,
        activation: str | float = "relu",
        initial_weights: str = "fan_in",
        network: str = "perceptron",
        data: Images | None = None,
    ):
        super().__init__()
        all_at_least(1, encoder_widths=encoder_widths), all_at_least(1, decoder_widths=decoder_widths)
        self.data = images_only(data)
        self.K, self.C = at_least(1, variables=variables), at_least(1, categories=categories)
        self.D = at_least(1, dimensions=dimensions)
        self.gradient = one_of(("estimator", "copied", "rotated"), gradient=gradient)
        self.temperature = positive(temperature=temperature)
        if not is_number(commitment) or not 0 <= commitment < float("inf"):
            kind = ValueError if is_number(commitment) else TypeError
            raise kind(f"commitment must be a number of at least 0, got {commitment!r}")
        self.commitment = float(commitment)
        self.decay = None if codebook_decay is None else fraction(codebook_decay=codebook_decay)
        self.examples, pixels = self.data.train_images.shape
        self.nats_divisor = pixels
        convolutional = is_convolutional(network)
        size = features_of(self.data.shape) if convolutional else pixels
        made = lambda *widths: perceptron(widths, activation, initial_weights)
        self.encoder: nn.Module = made(size, *encoder_widths, self.K * self.D)
        self.decoder: nn.Module = made(self.K * self.D, *decoder_widths, size)
        if convolutional:
            self.encoder = nn.Sequential(to_features(self.data.shape, activation, initial_weights), self.encoder)
            self.decoder = nn.Sequential(self.decoder, to_pixels(self.data.shape, activation, initial_weights))
        codes = torch.randn(self.C, self.D) / self.D**0.5
        if self.decay is None:
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
            self.register_buffer("weights", torch.ones(self.C))  # moving average of how many vectors each code gets
        self.last: tuple[Tensor, Tensor] | None = None  # vectors and nearest codes of the problem made last

    def nest(self, estimator: Estimator) -> None:
        if self.gradient != "estimator" and type(estimator) is not StraightThrough:
            raise ValueError(
                f"task.gradient={self.gradient} asks no estimator: say estimator=straight_through, which would choose "
                f"the same codes, not {type(estimator).__name__}, which would change nothing"
            )
        super().nest(estimator)

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.data.batch(index, generator)

    def measurement_batch(self, size: int) -> Tensor:
        return self.data.held_out("valid")[:size]

    def vectors(self, x: Tensor) -> Tensor:
        r"""The encoder's vectors ``[*batch, K, D]`` of images ``[*batch, pixels]``."""
        return self.encoder(x).unflatten(-1, (self.K, self.D))

    def logits(self, vectors: Tensor) -> Tensor:
        r"""Logits ``[*batch, K, C]`` of vectors ``[*batch, K, D]``: minus squared distances over the temperature."""
        squares = vectors.square().sum(-1, keepdim=True) + self.codebook.square().sum(-1)
        return (2 * vectors @ self.codebook.T - squares) / self.temperature

    def squared_error(self, codes: Tensor, x: Tensor) -> Tensor:
        r"""Error ``[..., *batch]`` of images x ``[*batch, pixels]``, given their codes ``[..., *batch, K, D]``."""
        return (self.decoder(codes.flatten(-2)) - x).square().sum(-1)

    def problem(self, batch: Tensor) -> Problem:
        vectors = self.vectors(batch)
        logits = self.logits(vectors)
        nearest = sampling.one_hot(logits.argmax(-1), logits)
        self.last = vectors.detach(), nearest
        codes = nearest @ self.codebook
        penalty = self.commitment * (vectors - codes.detach()).square().sum((-2, -1))
        if self.decay is None:
            penalty = penalty + (codes - vectors.detach()).square().sum((-2, -1))
        if self.gradient == "estimator":
            objective = lambda z: self.squared_error(z @ self.codebook, batch)
            return Problem(logits, objective, penalty, batch)
        carried = copied if self.gradient == "copied" else rotated
        penalty = penalty + self.squared_error(carried(vectors, codes), batch)
        return Problem(logits, nothing_of, penalty, batch)

    def expected_cost(self, logits: Tensor) -> Tensor | None:
        return None if self.gradient == "estimator" else nothing_of(logits)

    @torch.no_grad()
    def advance(self) -> None:
        if self.decay is None or self.last is None:
            return
        vectors, nearest = (x.flatten(0, -2) for x in self.last)
        counts, sums = nearest.sum(0), nearest.T @ vectors
        self.weights.lerp_(counts, 1 - self.decay)
        step = (1 - self.decay) / self.weights.clamp(min=LEAST_DIVISOR).unsqueeze(-1)
        self.codebook += step * (sums - counts.unsqueeze(-1) * self.codebook)
        self.last = None

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        images = self.data.held_out(split)
        errors, usage = images.new_zeros(2), images.new_zeros(self.C)
        for x in images.split(AT_ONCE):
            logits = self.logits(self.vectors(x))
            nearest = sampling.one_hot(logits.argmax(-1), logits)
            z = torch.stack([nearest, sampling.draw(logits, 1)[0]])
            errors += self.squared_error(z @ self.codebook, x).sum(-1)
            usage += nearest.sum((0, 1))
        reconstruction, drawn = (errors / images.numel()).tolist()
        shares = usage / usage.sum()
        perplexity = torch.special.entr(shares).sum().exp()
        found = {"reconstruction": reconstruction, "drawn": drawn}
        found |= {"codes": float((usage > 0).sum()), "perplexity": float(perplexity)}
        return {name: found[name] for name in found if name != "drawn" or self.gradient == "estimator"}

    @torch.no_grad()
    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        x = self.data.held_out("test")[:GRID]
        logits = self.logits(self.vectors(x))
        codes = sampling.one_hot(logits.argmax(-1), logits) @ self.codebook
        return {"reconstructions": grid(torch.stack([x, self.decoder(codes.flatten(-2)).clamp(0, 1)]), self.data.shape)}


def nothing_of(z: Tensor) -> Tensor:
    r"""Costs of 0, ``[..., K, C] -> [...]``, with a derivative of 0."""
    return 0 * z.sum((-2, -1))


def copied(vectors: Tensor, codes: Tensor) -> Tensor:
    r"""The codes, with their gradient copied to the vectors; both ``[..., D]``. No gradient goes to the codes."""
    return straight_through(codes.detach(), vectors)


def rotated(vectors: Tensor, codes: Tensor) -> Tensor:
    r"""The codes, as a constant rotation and rescaling of the vectors, through which the gradient goes back.

    The rotation R turns the direction u of a vector e into that q of its code c within the plane of both: with
    w = (u + q) / ‖u + q‖ it is I - 2 w wᵀ + 2 q uᵀ, and c is ‖c‖ / ‖e‖ R e. A gradient g comes to the vector as
    ‖c‖ / ‖e‖ Rᵀ g, none to the code. It is not defined for opposite directions, nor where a vector is 0.

    References:
        | Restructuring Vector Quantization with the Rotation Trick (Fifty et al., 2024), Section 4.2
        | https://arxiv.org/abs/2410.06424

    Arguments:
        vectors, codes: ``[..., D]``.
    """
    codes, constant = codes.detach(), vectors.detach()
    length = constant.norm(dim=-1, keepdim=True).clamp(min=LEAST_DIVISOR)
    u, q = constant / length, nn.functional.normalize(codes, dim=-1)
    w = nn.functional.normalize(u + q, dim=-1)
    along = lambda direction: (vectors * direction).sum(-1, keepdim=True)
    turned = vectors - 2 * along(w) * w + 2 * along(u) * q
    return straight_through(codes, codes.norm(dim=-1, keepdim=True) / length * turned)
