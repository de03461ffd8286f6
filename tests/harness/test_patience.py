"""A run that waits for a better validation no longer: when it ends, what it keeps, and that it goes on exactly."""

import json

import pytest
import torch

from hardmax.gradients import Stream, forked_random
from hardmax.harness import tracking
from hardmax.harness.config import key_of, plain_config
from hardmax.harness.jobs import merit_of
from hardmax.harness.state import State
from hardmax.harness.train import train
from hardmax.reporting.runs import find_runs
from helpers.commands import SHORT, composed, folders, rows_of, started

TOY = ["task=toy", "estimator=reinforce", "measure.every=0", "steps=90", "log_every=7", "valid.every=10"]
ELBOS = [1.0, 3.0, 2.0, 4.0, 4.0, 3.0, 5.0]


def with_figures(costs, *overrides):
    """A run whose validations are these: its end, its figures and rows, and its parameters at each evaluation."""
    state, cfg = started(*TOY, *overrides)
    seen, rows = [], []

    def evaluate(split):
        parameters = torch.cat([p.detach().flatten().clone() for p in state.task.parameters()])
        seen.append((split, state.step, parameters))
        return {"cost": costs[state.step // 10] if split == "valid" else 0.0, "optimum": 0.0}

    state.task.evaluate = evaluate
    found = train(state, cfg, lambda step, row, _: rows.append({"step": step, **row}))
    return state, found, rows, seen


@pytest.mark.parametrize(
    ("patience", "last", "best"), [(0, 90, None), (1, 20, 10), (2, 50, 30), (3, 90, 60), (9, 90, 60)]
)
def test_a_run_ends_after_so_many_validations_without_a_better_one(patience, last, best):
    """Lower costs are better, and an equal one is not; the end of all steps ends it too."""
    costs = [-elbo for elbo in [*ELBOS, 4.0, 4.0, 5.0]]
    state, found, rows, seen = with_figures(costs, f"patience={patience}")
    assert state.step == last
    assert [step for split, step, _ in seen if split == "valid"] == list(range(0, last + 1, 10))
    assert rows[-2]["step"] == last
    assert {"train/loss", "cost/evaluations", "valid/cost"} <= rows[-2].keys(), "the last row is whole"
    split, step, tested = seen[-1]
    assert (split, step) == ("test", last)
    of_step = {step: parameters for split, step, parameters in seen if split == "valid"}
    assert torch.equal(tested, of_step[last if best is None else best])
    if best is None:
        assert not {"best_step", "valid/cost"} & found.keys()
    else:
        assert not torch.equal(tested, of_step[last])
        assert (found["best_step"], found["valid/cost"]) == (best, costs[best // 10])


def test_patience_is_part_of_what_a_run_is(tmp_path):
    keys = {key_of(plain_config(composed(f"patience={n}"))) for n in (0, 3, 4)}
    assert len(keys) == 3


def test_patience_that_cannot_be_is_refused(command, monkeypatch):
    code, _, err = command(*TOY, "patience=-1")
    assert (code, err) == (2, "error: patience must be an integer of at least 0, got -1\n")
    code, _, err = command(*TOY, "patience=2", "valid.every=0")
    assert code == 2
    assert err.startswith("error: patience=2 counts validations, and valid.every=0 has none")
    monkeypatch.setattr("hardmax.tasks.toy.Toy.figures", {})
    code, _, err = command(*TOY, "patience=2")
    assert (code, err) == (2, "error: patience=2: no figure of Toy can be better or worse\n")


def test_a_run_that_is_over_early_dies_anywhere_and_goes_on_to_the_same_bytes(command, tmp_path, monkeypatch, measured):
    """In the middle; upon its last row, before and after what is saved behind it; and after its figures."""
    choice = [*SHORT, "task=dvae", "estimator=nvil", "optimizer.lr=0.3", "steps=80", "valid.every=3", "patience=2"]
    choice += ["measure.every=0", "wandb.mode=disabled", "checkpoint_every=0"]
    code, out, _ = command(*choice, f"output={tmp_path / 'whole'}")
    assert code == 0
    (whole,) = folders(tmp_path / "whole")
    rows, summary = rows_of(whole), json.loads((whole / "summary.json").read_text())
    last, best = summary["steps"], summary["best_step"]
    assert best < last < 80
    assert f"best         validation at step {best}" in out
    assert next(row for row in rows if row["step"] == best)["valid/elbo"] == summary["valid/elbo"]
    log, save = tracking.Tracker.log, State.save
    for number, (at, count, until) in enumerate([(last - 2, 1, 99), (last, 1, 99), (last, 1, 7), (last, 2, 99)]):
        output, left = tmp_path / f"died{number}", [count]

        def dies(tracker, step, *rest, at=at, left=left):
            log(tracker, step, *rest)
            left[0] -= step >= at
            if left[0] == 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as broken:
            broken.setattr(tracking.Tracker, "log", dies)
            broken.setattr(
                State, "save", lambda state, *to, until=until: save(state, *to) if state.step <= until else 0
            )
            assert command(*choice, f"output={output}")[0] == 130
        code, out, _ = command(*choice, f"output={output}")
        assert code == 0
        assert "going on from step" in out
        (died,) = folders(output)
        assert (died / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
        again = json.loads((died / "summary.json").read_text())
        assert {k: v for k, v in again.items() if k not in ("seconds", "sizes")} == {
            k: v for k, v in summary.items() if k not in ("seconds", "sizes")
        }
    (run,) = find_runs([whole]).runs
    assert run.validation["valid/elbo"].final == summary["valid/elbo"]
    cfg = composed(*choice)
    assert merit_of(cfg, whole) == summary["valid/elbo"]
    state, _ = started(*choice)
    state.load_parameters(whole / "state.pt")
    assert state.step == best
    with forked_random(torch.device("cpu"), cfg.seed, last, Stream.TEST):
        assert state.task.evaluate("test")["elbo"] == rows[-1]["test/elbo"], "what is measured later is what was tested"


def test_what_a_task_counts_along_training_is_of_the_whole_run():
    """Though its parameters are those of the best validation."""
    state, cfg = started(*TOY, "patience=2")
    task = state.task
    task.register_buffer("count", torch.zeros(()))
    task.history = ("count",)
    state.best.kept = state.best.copied()
    task.advance = lambda: task.count.add_(1)
    task.evaluate = lambda split: {"cost": float(state.step), "optimum": 0.0}  # the first is the best
    train(state, cfg, lambda *_: None)
    assert (state.best.step, state.step) == (0, 20)
    assert task.count == 20
