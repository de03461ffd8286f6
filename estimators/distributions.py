from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from .base import Estimator, log_prob
from .gumbel_softmax import GumbelSoftmax, log_concrete


class OneHotCategorical(torch.distributions.OneHotCategorical):
    r"""One-hot categorical variables whose ``rsample`` has the gradient of an estimator.

    Everything but ``rsample`` is about the discrete variables themselves: ``sample`` draws them whatever the estimator,
    ``mean``, ``mode`` and ``entropy`` (nats) are theirs. Densities stay in log space, so that categories of
    probability 0 do no harm. With an estimator that needs values of the cost there is no ``rsample``
    (``has_rsample`` is false): call that estimator with the logits and a function instead.

    Arguments:
        probs: Probabilities ``[*batch, C]``, in proportion; either these or ``logits``.
        logits: Unnormalised log-probabilities, ``[*batch, C]``.
        estimator: Whose draws ``rsample`` returns: one-hot, or points of the simplex for a relaxation.
        validate_args: As any distribution of PyTorch has it.

    Raises:
        TypeError: If ``estimator`` is none, but a class for one.
    """

    def __init__(
        self,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        *,
        estimator: Estimator,
        validate_args: bool | None = None,
    ):
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimator must be an estimator, such as hardmax.ReinMax(), got {estimator!r}")
        self.estimator = estimator
        super().__init__(probs, logits, validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # a constant of other distributions
        return type(self.estimator).rsample is not Estimator.rsample

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]  # a constant of other distributions
        return constraints.simplex if self.estimator.target in ("relaxed", "draws") else constraints.one_hot

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        r"""Draws with the estimator's gradient, ``[*sample_shape, *batch, C]``.

        Raises:
            NotImplementedError: If the estimator needs values of the cost.
        """
        return self.estimator.rsample(self.logits.expand(self._extended_shape(torch.Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        r"""log q(value) in nats, ``[*sample_shape, *batch]``; linear in ``value`` between one-hot vectors.

        Minus infinity where ``value`` has a share in a category of probability 0.
        """
        if self._validate_args:
            self._validate_sample(value)
        impossible = ((self.logits == -torch.inf) & (value != 0)).any(-1)
        return log_prob(self.logits.unsqueeze(-2), value.unsqueeze(-2)).masked_fill(impossible, -torch.inf)

    def expand(self, batch_shape: Sequence[int], _instance: Self | None = None) -> Self:
        new = self._get_checked_instance(OneHotCategorical, _instance)
        new.estimator = self.estimator
        return super().expand(batch_shape, new)


@register_kl(OneHotCategorical, OneHotCategorical)
@register_kl(OneHotCategorical, torch.distributions.OneHotCategorical)
@register_kl(torch.distributions.OneHotCategorical, OneHotCategorical)
def kl_of_one_hots(p: torch.distributions.OneHotCategorical, q: torch.distributions.OneHotCategorical) -> Tensor:
    r"""KL(p, q) in nats, ``[*batch]``: of the discrete variables, in log space.

    With ``GumbelSoftmax(relaxed_kl=True)`` behind p it is that of the relaxed variables, estimated from one draw of p;
    q is then relaxed at the estimator's ``prior_temperature``.
    """
    estimator = getattr(p, "estimator", None)
    if isinstance(estimator, GumbelSoftmax) and estimator.relaxed_kl:
        log_y = estimator.log_draw(p.logits)[0]
        prior_temperature = torch.as_tensor(estimator.prior_temperature, dtype=torch.float64)
        of_p = log_concrete(log_y, p.logits, estimator.temperature())
        return (of_p - log_concrete(log_y, q.logits, prior_temperature)).to(p.logits.dtype)
    impossible = p.probs == 0
    ratio = (p.logits - q.logits).masked_fill(impossible, 0.0)
    return (p.probs * ratio).sum(-1)
