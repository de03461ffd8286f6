"""A task of your own: a batch becomes a problem, and every estimator can be trained on it.

Twelve switches of three positions are to be set without seeing more than how far the light is from a pattern.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

import hardmax
from hardmax.tasks.base import Figure, Problem, Task


class Switches(Task):
    """Set ``variables`` switches of three positions; cost is the squared distance from a hidden pattern of lights.

    Figures: ``distance``, from discrete draws; 0 is reached.
    """

    figures = {"distance": Figure("distance from the pattern", better="lower")}

    def __init__(self, variables: int = 12):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(variables, 3))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("lights", torch.randn(variables * 3, 6, generator=generator))
        hidden = torch.randint(3, (variables,), generator=generator)
        self.register_buffer("pattern", self.light(nn.functional.one_hot(hidden, 3).float()))

    def light(self, z):
        return z.flatten(-2) @ self.lights / len(self.logits) ** 0.5  # [..., K, 3] -> [..., 6]

    def objective(self, z):
        return (self.light(z) - self.pattern).square().sum(-1)  # [S, *batch, K, 3] -> [S, *batch]

    def batch(self, index, generator):
        return index  # every example is the same problem

    def measurement_batch(self, size):
        return torch.zeros(size, dtype=torch.long)

    def problem(self, batch):
        return Problem(self.logits.expand(len(batch), *self.logits.shape), self.objective)

    def encoder_parameters(self):
        return [self.logits]

    @torch.no_grad()
    def evaluate(self, split):
        z = hardmax.Reinforce().sample(self.logits.expand(1000, *self.logits.shape))
        return {"distance": float(self.objective(z).mean())}


with tempfile.TemporaryDirectory() as folder:
    conf = Path(folder) / "conf" / "task"
    conf.mkdir(parents=True)
    (conf / "switches.yaml").write_text(f"_target_: {__name__}.Switches\nvariables: 12\n")
    settings = ["task=switches", "batch_size=10", "optimizer.lr=0.1", "wandb.mode=disabled", "measure.every=0"]
    settings += [f"output={folder}/output"]
    for name in ("reinforce", "arsm", "reinmax"):
        run = hardmax.run(f"estimator={name}", *settings, config_dir=conf.parent, steps=200)
        print(f"{name}: distance {run.figures['test/distance']:.3f}, from {run.rows['valid/distance'][0]:.3f}")
        assert run.figures["test/distance"] < run.rows["valid/distance"][0] / 2
