"""A run's training step beside the same step written by hand in plain PyTorch, as a ratio.

The default discrete VAE under Gumbel-softmax, one thread. The run trains as from the command line and logs to its
files and to W&B (offline) at the default interval; the loop by hand writes its loss to a file as often. Both take
turns in one process, and the median of the pairwise ratios is quoted, since machines are noisy. Evaluation and
gradient statistics are off. Run it as ``python -m benchmarks.overhead``.
"""

import json
import math
import statistics
import tempfile
from pathlib import Path

import hydra
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.shared import one_thread, take_turns
from hardmax.harness import app, options
from hardmax.harness.config import build, plain_config
from hardmax.harness.tracking import Tracker
from hardmax.harness.train import prepare, train
from hardmax.tasks.digits import digits
from hardmax.tasks.vae import perceptron

STEPS, TURNS = 500, 15


def harness(folder: Path):
    """A function that trains for STEPS more steps, as ``run.py`` does."""
    options.register()
    with hydra.initialize_config_dir(str(app.CONFIGS), version_base="1.3"):
        cfg = hydra.compose("config", ["measure.every=0", "valid.every=0", "wandb.mode=offline"])
    labels = {"task": "dvae", "estimator": "gumbel_softmax", "seed": 0}
    device = torch.device("cpu")
    torch.manual_seed(0)
    task, estimator = build(cfg, "task", "dvae"), build(cfg, "estimator", "gumbel_softmax")
    state = prepare(cfg, task, estimator, device)
    task.evaluate = lambda split: {}  # type: ignore[method-assign]
    tracker = Tracker(folder, plain_config(cfg), labels, device, {"code": {}, "data": {}})

    def steps():
        cfg.steps = state.step + STEPS
        train(state, cfg, tracker.log)

    return steps, tracker, cfg.log_every


def by_hand(folder: Path, log_every: int):
    """A function that trains for STEPS more steps, with everything spelled out."""
    images, batch, K, C = digits()["train"], 100, 20, 10
    encoder, decoder = perceptron([64, 200, K * C]), perceptron([K * C, 200, 64])
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)
    file = (folder / "losses.jsonl").open("w")

    def steps():
        position = len(images)
        for step in range(STEPS):
            if position + batch > len(images):
                order, position = torch.randperm(len(images)), 0
            x = images[order[position : position + batch]].bernoulli()
            position += batch
            logits = encoder(x).view(batch, K, C)
            noise = -torch.empty_like(logits).exponential_().log()
            pixels = decoder(((logits + noise) / 1.0).softmax(-1).flatten(1))
            likelihood = binary_cross_entropy_with_logits(pixels, x, reduction="none").sum(-1)
            log_q = logits.log_softmax(-1)
            kl = (log_q.exp() * log_q).sum((-2, -1)) + K * math.log(C)
            loss = (likelihood + kl).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % log_every == 0:
                file.write(json.dumps({"step": step, "train/loss": loss.item()}) + "\n")
                file.flush()

    return steps


def main() -> None:
    one_thread()
    with tempfile.TemporaryDirectory() as name:
        ours, tracker, log_every = harness(Path(name))
        hand = by_hand(Path(name), log_every)
        pairs = take_turns(ours, hand, turns=TURNS)
        tracker.close(0)
    columns = [1e3 / STEPS * statistics.median(column) for column in zip(*pairs, strict=True)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"ms per training step: run {columns[0]:.3f}, by hand {columns[1]:.3f}, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
