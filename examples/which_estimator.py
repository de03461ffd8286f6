"""Which estimator for a cost of your own: asked before training, and again when it has gone on for a while."""

import torch

import hardmax

torch.manual_seed(0)
encoder, target = torch.nn.Linear(8, 3 * 4), torch.randn(3, 4)
inputs = torch.randn(16, 8)


def objective(z):
    """Cost ``[S, *batch]`` of three choices among four, ``z [S, *batch, 3, 4]``."""
    return (z - target).square().sum((-2, -1)).sqrt()


def logits():
    return encoder(inputs).unflatten(-1, (3, 4))


first = hardmax.compare(logits(), objective, seconds=5, most_evaluations=16)  # a minute tells more
for row in first.table[:5]:
    print(f"{row.estimator:<45} bias² {row.bias2:9.6f}  variance {row.variance:8.4f}  evaluations {row.evaluations:g}")
print(first.advice)

optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
for _ in range(100):
    optimizer.zero_grad()
    hardmax.ReinMax()(logits(), objective).mean().backward()
    optimizer.step()

later = hardmax.compare(logits(), objective, seconds=5, most_evaluations=16, earlier=first)
print(later.advice)
assert "; before, " in later.advice or "; so it did before" in later.advice
