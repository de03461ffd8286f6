"""Training, measuring and evaluating on a device: all in one place, and nothing read back between two rows."""

from functools import cache

import pytest
import torch

from benchmarks.gpu.models import NAMES, make
from hardmax.gradients.moments import Moments
from hardmax.harness.config import build
from hardmax.harness.train import prepare, train
from helpers.cases import in_part
from helpers.commands import composed, sampled_kl
from helpers.devices import NAME, absent_device

SMALL = ["task.variables=2", "task.categories=3"]
TASKS = {  # but for episodes, whose environment is on the processor
    "bandit": ["task.arms=3"],
    "toy": SMALL,
    "polynomial": SMALL,
    "quadratic": [],
    "quadratic_form": SMALL,
    "dvae": [*SMALL, "task.layers=2", "task.prior=learned", "task.kl=sampled", "task.bound_samples=2"],
    "generation": ["task.length=3", "task.vocabulary=3", "task.width=4"],
    "listops": ["task.tokens=4", "task.width=4"],
    "text": [*SMALL, "task.bound_samples=2"],
    "routing": ["task.experts=2"],
    "addition": [],
    "gates": ["task.widths=[5, 10]"],
    "mixture": ["task.points=20"],
    "semi_supervised": ["task.style=2", "task.bound_samples=2"],
    "structured": [*SMALL, "task.bound_samples=2"],
    "vq": [*SMALL, "task.network=convolutional", "task.codebook_decay=0.9"],
}
CASES = [
    (e, "dvae", (*SMALL, "task.bound_samples=2", *sampled_kl(e, "dvae")))
    for e in NAMES
    if e not in ("exact", "sparse_expectation")
]
CASES = in_part([(*case, "measure.every=0") for case in CASES], 12) + [
    pytest.param(*case, "measure.every=1000", marks=pytest.mark.long) for case in CASES
]
CASES += in_part([("reinforce", task, tuple(options), "measure.every=1000") for task, options in TASKS.items()], 3)


class Trained(Exception):
    pass


@cache
def config(task, *options):
    choice = ["batch_size=4", "steps=2", "log_every=100", "measure.draws=2", "measure.running_decay=0.999"]
    return composed(f"task={task}", *options, *choice)


@pytest.fixture(scope="module", autouse=True)
def first_backward_pass():
    """On the device, before some estimator makes one on the processor as it takes its sizes."""
    with pytest.MonkeyPatch.context() as patch, absent_device(patch):
        torch.ones(1, device=NAME, requires_grad=True).sum().backward()


@pytest.mark.parametrize(
    ("estimator", "task", "options", "every"), CASES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_on_a_device_nothing_comes_from_the_processor_or_goes_there(monkeypatch, estimator, task, options, every):
    """Each estimator trains, and each task is measured and evaluated too; measured with each estimator, where long."""
    cfg, before = config(task, *options, every), []
    parts = build(cfg, "task", task), make(estimator)
    prepare(cfg, *parts, torch.device("cpu"))  # lets learned parts take their sizes

    def between(last):
        before.append(len(watch.found))
        if last:
            raise Trained

    if estimator != "reinforce":  # what is made of draws is the same for all, and so is an evaluation
        parts[0].evaluate = lambda split: {}
        monkeypatch.setattr(Moments, "statistics", lambda *_: {"variance": None, "variance_error": None})
    with absent_device(monkeypatch) as watch:
        state = prepare(cfg, *parts, torch.device(NAME))
        with pytest.raises(Trained):  # the last row would be as the first
            train(state, cfg, lambda *_: None, between)
    second_step = watch.found[before[1] : before[2]]
    assert not second_step, "what a training step waits for"
    assert before[1] or every == "measure.every=0", "rows are read"
