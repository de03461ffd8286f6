from torch import Tensor

from .base import Estimator, one_draw
from .objectives import Objective


class Pathwise(Estimator):
    r"""Base of the estimators that evaluate the objective once, at a draw through which the gradient flows.

    A subclass writes :meth:`draw`, and another ``target`` if those are no draws of the discrete variables. All that
    such an estimator is lies in its draws, so that :meth:`rsample` can stand wherever
    ``torch.nn.functional.gumbel_softmax`` does.
    """

    target, unbiased, differentiates_objective = "expectation", False, True

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        return objective(self.draw(logits))[0]

    def rsample(self, logits: Tensor) -> Tensor:
        r"""One draw whose gradient with respect to ``logits`` is the estimator's.

        Any loss of the draw can be differentiated by an ordinary backward pass: there is no objective to write. Do not
        use it where the loss is not differentiable in the draw. Temperatures move with :meth:`advance`, as ever.

        Arguments:
            logits: Unnormalised log-probabilities, ``[..., C]``; minus infinity rules a category out.

        Returns:
            One-hot, or a point of the simplex for a relaxation: ``[..., C]``, in the precision of the logits.

        Raises:
            ValueError: If the logits are a scalar, or empty.
            TypeError: If they are not floating point.
        """
        return one_draw(self, logits)
