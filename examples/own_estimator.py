"""An estimator of your own: write it, certify it, measure its bias, train with it, and compare it with others.

Two antithetic draws: the second uses one minus the first one's uniform number.
"""

import tempfile
from pathlib import Path

import torch

import hardmax
from hardmax.certification import failures
from hardmax.estimators import Estimator, sampling
from hardmax.estimators.base import log_prob


class Antithetic(Estimator):
    """Leave-one-out REINFORCE of an antithetic pair, as if the two were independent: which they are not."""

    target, unbiased, differentiates_objective = "expectation", False, False
    evaluations = "2"

    def estimate(self, logits, objective, context):
        first = sampling.uniform(logits[..., 0], 1)
        below = torch.cat([first, 1 - first]).unsqueeze(-1) > logits.softmax(-1).cumsum(-1)
        index = below.sum(-1).clamp(max=logits.shape[-1] - 1)
        z = sampling.one_hot(index, logits)  # [2, *batch, K, C]
        cost = objective(z)
        advantage = (cost - cost.flip(0)).detach()
        log_q = log_prob(logits, z)
        return (cost + advantage * (log_q - log_q.detach())).mean(0)


def bias_of(estimator, draws=100_000):
    """Distance of the mean gradient from the exact one, over its norm; and the noise in that."""
    logits = torch.tensor([[0.5, -0.5]])
    found: list[torch.Tensor] = []
    for e, n in ((estimator, draws), (hardmax.Exact(), 1)):
        leaf = logits.expand(n, 1, 2).clone().requires_grad_()
        cost = e(leaf, lambda z: (z[..., 0, 0] - 0.3) ** 2)
        found += torch.autograd.grad(cost.sum(), leaf)
    g, (truth,) = found
    bias, noise = (g.mean(0) - truth).norm(), (g.var(0).sum() / draws).sqrt()
    return float(bias / truth.norm()), float(noise / truth.norm())


assert failures(Antithetic()) == []  # the conformance suite: it is what it claims to be
bias, noise = bias_of(Antithetic())
print(f"Bias of the pair: {bias:.1%} of the gradient (noise {noise:.1%}): it is right to say unbiased = False.")
assert bias > 10 * noise

# In a sweep it is named by a file of its own: estimator=antithetic --config-dir conf, beside any other estimator.
with tempfile.TemporaryDirectory() as folder:
    conf = Path(folder) / "conf" / "estimator"
    conf.mkdir(parents=True)
    (conf / "antithetic.yaml").write_text(f"_target_: {__name__}.Antithetic\n")
    task = ["task=toy", "task.categories=2", f"output={folder}/output", "wandb.mode=disabled", "measure.every=0"]
    for name in ("antithetic", "disarm_iw"):
        run = hardmax.run(f"estimator={name}", *task, config_dir=Path(folder) / "conf", steps=100)
        print(f"{name}: {run.figures['test/gap']:.4f} above the optimum after 100 steps")
