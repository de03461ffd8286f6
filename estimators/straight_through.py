from estimators import sampling
from estimators.base import Estimator, one_of, positive, straight_through


class StraightThrough(Estimator):
    r"""Hardmax forward, softmax backward: the gradient of a one-hot choice is that of the softmax.

    One evaluation and little variance, at the price of a bias that no number of draws removes. With
    ``stochastic`` and temperature 1 the gradient is exact for an objective that is linear in z, and only for
    such. Without it the value is the cost of the most probable categories, so nothing is explored.

    References:
        | Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation
          (Bengio et al., 2013)
        | https://arxiv.org/abs/1308.3432

    Arguments:
        temperature: Divides the logits in the backward pass, above 0; its reciprocal scales the gradient.
        stochastic: Whether to choose by a draw rather than by argmax.
    """

    unbiased, differentiates_objective = False, True

    def __init__(self, temperature: float = 1.0, stochastic: bool = False):
        super().__init__()
        self.temperature = positive(temperature=temperature)
        self.stochastic = one_of([True, False], stochastic=stochastic)
        self.target = "expectation" if stochastic else "mode"

    def estimate(self, logits, objective, context):
        soft = (logits / self.temperature).softmax(-1)
        return objective(straight_through(self.sample(logits), soft.unsqueeze(0)))[0]

    def sample(self, logits):
        if self.stochastic:
            return sampling.draw(logits, 1)
        return sampling.one_hot(logits.argmax(-1), logits).unsqueeze(0)
