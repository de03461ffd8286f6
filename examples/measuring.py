"""Bias and variance of estimators on a cost of your own, against the exact gradient."""

import torch

import hardmax

torch.manual_seed(0)
logits, target = torch.randn(3, 4), torch.randn(3, 4)


def objective(z):
    """Cost ``[S, *batch]`` of three choices among four, ``z [S, *batch, 3, 4]``."""
    return (z - target).square().sum((-2, -1)).sqrt()


def gradients(estimator, draws):
    """Independent gradient draws ``[draws, 3, 4]``: a leading dimension is all that it takes."""
    leaf = logits.expand(draws, 3, 4).clone().requires_grad_()
    estimator(leaf, objective).sum().backward()
    return leaf.grad


exact = gradients(hardmax.Exact(), 1)[0]
print(f"{'estimator':<24} {'bias / norm':>12} {'standard deviation / norm':>26}")
for estimator in (
    hardmax.Reinforce(samples=4, baseline="leave_one_out"),
    hardmax.ARSM(),
    hardmax.LocalExpectation(),
    hardmax.StraightThroughGumbelSoftmax(temperature=0.5),
    hardmax.ReinMax(),
):
    g = gradients(estimator, 20_000)
    bias = (g.mean(0) - exact).norm() / exact.norm()
    deviation = g.var(0).sum().sqrt() / exact.norm()
    print(f"{type(estimator).__name__:<24} {bias:>12.3f} {deviation:>26.2f}")
    assert not estimator.unbiased or bias < 6 * deviation / 20_000**0.5
