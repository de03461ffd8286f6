import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hardmax.checks import all_at_least, at_least, is_number, one_of
from hardmax.estimators import sampling
from hardmax.estimators.base import Estimator

from .base import Figure, Problem, Task
from .data import Images, images_only
from .dvae import bernoulli_nats
from .vae import kl_from_uniform, perceptron


class SemiSupervised(Task):
    r"""Autoencoder of binary images with a class, one categorical variable, and a normal style; few classes are known.

    Of unlabelled images the class is one variable of C categories, inferred by the estimator; ``estimator=exact``
    marginalises it. The objective is -log p(x | y, s) in nats and the divergence of the style's q(s | x, y) from a
    standard normal distribution, at one draw of the style's noise that all classes share; the class's divergence
    from uniform is in closed form. The labelled images, all of them in every step, add the same at their
    class, and ``alpha`` times the cross-entropy of q(y | x); they are binarised once, and as the images that they are
    among the unlabelled ones as well.

    Figures on held-out images: ``elbo`` in nats, with discrete draws of the class, ``accuracy`` of the most probable
    class.

    References:
        | Semi-Supervised Learning with Deep Generative Models (Kingma et al., 2014)
        | https://arxiv.org/abs/1406.5298
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), Section 4.3
        | https://arxiv.org/abs/1611.01144

    Arguments:
        categories: Number C of classes, at least that of the data; more are never labelled.
        labels: Number of labelled training images, the first of each class.
        style: Number of the style's dimensions.
        widths: Of the hidden layers of all networks.
        alpha: Weight of the cross-entropy of the labelled images, at least 0.
        kl: Of the class: ``analytic`` or ``sampled``.
        bound_samples: Draws per image of the ELBO of held-out images.
        data: Images with labels; None for the embedded digits.
    """

    figures = {
        "elbo": Figure("ELBO, discrete draws", "nats", "higher"),
        "accuracy": Figure("accuracy", "share right", "higher"),
        "loss": Figure("loss", "nats"),
    }

    labelled_images: Tensor
    labelled_classes: Tensor

    def __init__(
        self,
        categories: int = 10,
        labels: int = 100,
        style: int = 16,
        widths: Sequence[int] = (200,),
        alpha: float = 0.3,
        kl: str = "analytic",
        bound_samples: int = 10,
        data: Images | None = None,
    ):
        super().__init__()
        all_at_least(1, widths=widths)
        self.data = images_only(data)
        classes = self.data.classes()
        known = int(max(c.max() for c in classes.values())) + 1
        self.C, self.style = at_least(known, categories=categories), at_least(1, style=style)
        if not is_number(alpha) or not 0 <= alpha < float("inf"):
            kind = ValueError if is_number(alpha) else TypeError
            raise kind(f"alpha must be a number of at least 0, got {alpha!r}")
        self.alpha, self.bound_samples = float(alpha), at_least(1, bound_samples=bound_samples)
        self.sampled = one_of(("analytic", "sampled"), kl=kl) == "sampled"
        self.examples, pixels = self.data.train_images.shape
        for split in ("valid", "test"):
            self.register_buffer(f"{split}_classes", classes[split], persistent=False)
        of_train = classes["train"]
        each, fewest = at_least(known, labels=labels) // known, min(int((of_train == c).sum()) for c in range(known))
        if labels % known or each > fewest:
            most = f"at most {fewest * known:,}, as a class has {fewest:,} images"
            raise ValueError(f"labels must be a multiple of the {known} classes, and {most}, got {labels}")
        chosen = torch.cat([(of_train == c).nonzero().flatten()[:each] for c in range(known)])
        self.register_buffer("labelled_images", self.data.fixed(self.data.train_images[chosen]), persistent=False)
        self.register_buffer("labelled_classes", of_train[chosen], persistent=False)
        self.classifier = perceptron([pixels, *widths, self.C])
        self.encoder = perceptron([pixels + self.C, *widths, 2 * self.style])
        self.decoder = perceptron([self.C + self.style, *widths, pixels])

    def nest(self, estimator: Estimator) -> None:
        if estimator.target == "bound":
            raise ValueError(
                f"{type(estimator).__name__}: what it estimates is no bound on this task: the style's divergence is "
                "in closed form, and the loss of the labelled images is outside"
            )
        super().nest(estimator)

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.data.batch(index, generator)

    def measurement_batch(self, size: int) -> Tensor:
        return self.data.held_out("valid")[:size]

    def problem(self, batch: Tensor) -> Problem:
        logits = self.classifier(batch).unsqueeze(-2)
        noise = torch.randn(len(batch), self.style, device=batch.device, dtype=batch.dtype)
        # Where it is sampled, the estimator adds log q(y), and -log p(y) is a constant.
        penalty = self.labelled() + (math.log(self.C) if self.sampled else kl_from_uniform(logits))
        return Problem(logits, lambda z: self.cost(z.squeeze(-2), batch, noise), penalty, batch, self.sampled)

    def cost(self, y: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        r"""-log p(x | y, s) and the style's divergence in nats, ``[...]``.

        Arguments:
            y: One-hot or relaxed classes, ``[..., *batch, C]``.
            x: Images, ``[*batch, D]``.
            noise: Standard normal noise behind the style, ``[*batch, style]``.
        """
        mean, log_scale = self.encoder(torch.cat([x.expand(*y.shape[:-1], -1), y], -1)).chunk(2, -1)
        style = mean + log_scale.exp() * noise
        divergence = 0.5 * (mean**2 + (2 * log_scale).exp() - 1).sum(-1) - log_scale.sum(-1)
        return bernoulli_nats(self.decoder(torch.cat([y, style], -1)), x) + divergence

    def labelled(self) -> Tensor:
        r"""Mean loss of the labelled images in nats, a scalar."""
        x, c = self.labelled_images, self.labelled_classes
        logits = self.classifier(x)
        noise = torch.randn(len(x), self.style, device=x.device, dtype=x.dtype)
        y = sampling.one_hot(c, logits)
        return self.cost(y, x, noise).mean() + math.log(self.C) + self.alpha * cross_entropy(logits, c)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.classifier.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x, c = self.data.held_out(split), self.get_buffer(f"{split}_classes")
        logits = self.classifier(x).unsqueeze(-2)
        cost = x.new_zeros(())
        for _ in range(self.bound_samples):
            y = sampling.draw(logits, 1)[0].squeeze(-2)
            cost = cost + self.cost(y, x, torch.randn(len(x), self.style, device=x.device, dtype=x.dtype)).mean()
        elbo = -cost / self.bound_samples - kl_from_uniform(logits).mean()
        return {"elbo": float(elbo), "accuracy": float((logits.squeeze(-2).argmax(-1) == c).float().mean())}
