r"""How what an estimator learns gets its gradients, in the backward pass of the cost."""

from typing import Any

import torch
from torch import Tensor, nn


def trained_on(loss: Tensor, cost: Tensor, module: nn.Module) -> Tensor:
    r"""``cost`` with its value unchanged, whose backward pass also gives ``module`` the gradient of ``loss``.

    Nothing but the parameters of ``module`` that want gradients is reached by the loss. They lower it whatever the sign
    of what comes backward: a reward may be maximised as ``-estimator(logits, reward)``.

    Arguments:
        loss: A scalar: a mean over all leading dimensions, since the cost will be reduced by its mean.
        cost: ``[*batch]``.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return cost
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    products = ((p * g).sum() for p, g in zip(parameters, gradients, strict=True) if g is not None)
    tie = sum(products, loss.new_zeros(()))
    return with_loss(cost, tie)


def with_loss(cost: Tensor, loss: Tensor) -> Tensor:
    r"""``cost`` ``[*batch]`` with its value unchanged, whose backward pass lowers a scalar loss, whatever its sign."""
    return cost + _Lowered.apply((loss - loss.detach()).expand(cost.shape)).to(cost.dtype)


class _Lowered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.abs()


def evaluate_network(network: nn.Module, x: Tensor) -> Tensor:
    r"""``network(x)`` in the precision of x, whatever that of its parameters; lazy layers take their sizes here."""
    dtype = next(network.parameters()).dtype
    if any(nn.parameter.is_lazy(p) for p in network.parameters()):
        with torch.no_grad():
            network.to(x.device)(x.to(dtype))
    if x.dtype == dtype:
        return network(x)
    parameters = {name: p.to(x.dtype) for name, p in network.named_parameters()}
    return torch.func.functional_call(network, parameters, (x,))
