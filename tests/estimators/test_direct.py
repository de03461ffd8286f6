"""Direct optimisation: the published difference on the same noise, and its mean in closed form."""

import torch

from hardmax import certification as c
from hardmax.estimators import DirectOptimisation, sampling

PROBLEM = c.SmallProblem(3, 4, (2,), extreme=0.5)


def test_the_gradient_is_the_published_difference_on_the_same_noise(monkeypatch):
    """Every variable's category less the one that maximises perturbed logits less the step times the costs."""
    noise, eps = sampling.gumbel(PROBLEM.logits, 1), 0.8
    monkeypatch.setattr(sampling, "gumbel", lambda logits, samples: noise)
    logits, objective = PROBLEM.logits.clone().requires_grad_(), PROBLEM.objective(PROBLEM.parameters)
    (found,) = torch.autograd.grad(DirectOptimisation(eps)(logits, objective).sum(), logits)
    perturbed = (PROBLEM.logits + noise)[0]
    drawn, right = perturbed.argmax(-1), torch.zeros_like(found)
    for k in range(3):
        losses = []
        for category in range(4):
            changed = drawn.clone()
            changed[..., k] = category
            losses.append(objective(sampling.one_hot(changed, found).unsqueeze(0))[0])
        better = (perturbed[..., k, :] - eps * torch.stack(losses, -1)).argmax(-1)
        right[..., k, :] = (sampling.one_hot(drawn[..., k], found) - sampling.one_hot(better, found)) / eps
    assert torch.equal(found, right)
    assert found.any()


def test_its_mean_for_one_variable():
    """(softmax(logits) - softmax(logits - step f)) / step, within four standard errors of 200,000 draws."""
    draws, step = 200_000, 0.7
    phi = torch.tensor([[0.3, -0.5, 1.0, -torch.inf]], dtype=torch.float64)
    f = torch.tensor([1.0, -0.4, 0.6, -3.0], dtype=torch.float64)
    logits = phi.expand(draws, 1, 4).requires_grad_()
    (found,) = torch.autograd.grad(DirectOptimisation(step)(logits, lambda z: (z * f).sum((-2, -1))).sum(), logits)
    right = (phi.softmax(-1) - (phi - step * f).softmax(-1)) / step
    error = (found.var(0) / draws).sqrt()
    assert ((found.mean(0) - right).abs() <= 4 * error).all()
    assert (found[..., 3] == 0).all()
