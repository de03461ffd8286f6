"""A choice inside a model of your own: ReinMax where torch.nn.functional.gumbel_softmax stood, and ARSM on a closure.

A router sends each input to one of four linear maps; which of them made the target is to be found out.
"""

import torch

import hardmax

torch.manual_seed(0)
EXPERTS = torch.randn(4, 3, 2)
router = torch.nn.Linear(8, 4)
optimizer = torch.optim.Adam(router.parameters(), lr=0.03)
signs = torch.randn(4, 8)


def batch(size=64):
    kind = torch.randint(4, (size,))
    x, y = signs[kind] + 0.3 * torch.randn(size, 8), torch.randn(size, 3)
    return x, y, torch.einsum("ni,nij->nj", y, EXPERTS[kind]), kind


def error(z, y, target):
    """Squared error ``[..., n]`` when the choices ``z`` are ``[..., n, 4]``."""
    return (torch.einsum("...ne,ni,eij->...nj", z, y, EXPERTS) - target).square().mean(-1)


def train(loss, steps=200):
    """Accuracy of the router after so many steps on a loss of ``(logits, y, target)``."""
    router.reset_parameters()
    for _ in range(steps):
        x, y, target, _ = batch()
        optimizer.zero_grad()
        loss(router(x), y, target).mean().backward()
        optimizer.step()
    x, _, _, kind = batch(1000)
    return (router(x).argmax(-1) == kind).float().mean().item()


reinmax = hardmax.ReinMax(temperature=1.1)
by_rsample = train(lambda logits, y, target: error(reinmax.rsample(logits), y, target))
print(f"ReinMax by rsample: {by_rsample:.0%} of the inputs go to the right map")

# ARSM needs only values of the cost, so it takes a function of the choices: logits [n, K=1, C=4], z [S, n, 1, 4].
arsm = hardmax.ARSM()
by_closure = train(
    lambda logits, y, target: arsm(logits.unsqueeze(-2), lambda z: error(z.squeeze(-2), y, target)),
)
print(f"ARSM by a closure:  {by_closure:.0%} of the inputs go to the right map")
assert min(by_rsample, by_closure) > 0.9
