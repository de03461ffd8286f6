"""Every task trains, at small size, under one estimator of each kind; of the pairs a part, and all by test-long."""

import inspect
import itertools
import json

import pytest
import torch
from hydra.utils import get_class

from hardmax.harness.config import check_interpolations, key_of, plain_config
from hardmax.harness.shared import NEW_OPTIONS, NEW_SETTINGS, Refused, with_new_settings
from hardmax.harness.train import train
from hardmax.tasks.polynomial import Polynomial, Quadratic
from hardmax.tasks.toy import Toy
from helpers.cases import in_part
from helpers.commands import SHORT, composed, folders, rows_of, started

ESTIMATORS = {
    "gumbel_softmax": [],
    "st_gumbel_softmax": [],
    "straight_through": [],
    "reinforce": ["estimator.samples=2", "estimator.baseline=leave_one_out"],
    "arsm": [],
}
SIZES = ["task.variables=2", "task.categories=4"]
SMALL = ["task.encoder_widths=[16]", "task.decoder_widths=[16]", "task.bound_samples=5"]
# Options of each task, and the figure that is to fall, or with a minus sign to rise.
TASKS = {
    "bandit": (["task.arms=4", "optimizer.lr=0.01"], "gap"),
    "polynomial": ([*SIZES, "task.power=1.5", "optimizer.lr=0.03"], "cost"),
    "quadratic": (["task.toy=kool", "optimizer.lr=0.03", "steps=200"], "cost"),
    "quadratic_form": ([*SIZES, "optimizer.lr=0.03"], "cost"),
    "dvae": ([*SIZES, *SMALL, "task.layers=2", "task.prior=learned", "task.pinned=true", "task.kl=sampled"], "-elbo"),
    "generation": (["task.length=4", "task.vocabulary=4", "task.width=16", "optimizer.lr=0.01"], "kl"),
    "listops": (["task.tokens=4", "task.width=16", "optimizer.lr=0.01"], "cost"),
    "text": ([*SIZES, *SMALL], "-elbo"),
    "routing": (["task.experts=4", "optimizer.lr=0.01"], "-accuracy"),
    "semi_supervised": (["task.widths=[16]", "task.style=4", "optimizer.lr=0.003"], "-accuracy"),
    "structured": ([*SIZES, "task.bound_samples=5"], "nll"),
    "vq": ([*SIZES, *SMALL[:2], "data.binarisation=none"], "reconstruction"),
}


@pytest.mark.parametrize(("task", "estimator"), in_part(itertools.product(TASKS, ESTIMATORS), 13))
def test_the_figure_of_merit_improves(estimator, task):
    options, key = TASKS[task]
    choice = [f"estimator={estimator}", *ESTIMATORS[estimator], f"task={task}", *options]
    if task == "generation" and estimator == "reinforce":  # whole sentences are compared with each other
        choice += ["estimator.samples=1", "estimator.baseline=batch"]
    state, cfg = started("steps=120", "batch_size=64", "measure.draws=5", "measure.every=60", *choice)
    rows = []
    train(state, cfg, lambda step, row, seconds: rows.append(row))
    numbers = [v for row in rows for v in row.values() if v is not None]
    assert torch.tensor(numbers).isfinite().all()
    series = [row[f"valid/{key.removeprefix('-')}"] for row in rows if f"valid/{key.removeprefix('-')}" in row]
    better = series[-1] - series[0] if key.startswith("-") else series[0] - series[-1]
    # The relaxation's own optimum of these costs lies elsewhere.
    if not (task in ("polynomial", "quadratic", "quadratic_form") and estimator == "gumbel_softmax"):
        assert better > 0, f"{key} went from {series[0]} to {series[-1]}"


@pytest.mark.parametrize(
    ("task", "estimator"), in_part(itertools.product(TASKS, ["st_gumbel_softmax", "reinforce", "arsm"]), 7)
)
def test_logits_of_ten_thousand_leave_losses_finite(task, estimator):
    """In one layer after the other, of encoders and decoders; where logits are parameters themselves, there.

    The encoder of a Gaussian style has no logits: the scale of exp(10,000) is none.
    """
    state, _ = started(f"estimator={estimator}", f"task={task}", *TASKS[task][0], "batch_size=8", "measure.every=0")
    model, batch = state.task, state.task.batch(torch.arange(8), torch.Generator())

    def check():
        problem = model.problem(batch)
        cost = state.estimator(problem.logits, problem.objective, problem.context, problem.log_q)
        loss = (cost + problem.penalty).mean()
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()

    named = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    layers = [layer for name, layer in named if (task, name.split(".")[0]) != ("semi_supervised", "encoder")]
    for layer in layers:
        extreme = layer.register_forward_hook(lambda _, inputs, out: out + 1e4 * (2 * (out > 0).float() - 1))
        check()
        extreme.remove()
    if not layers:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(1e4 * torch.randn_like(parameter).sign())
        check()


def test_a_run_that_stops_early_is_the_beginning_of_the_longer_one(command, tmp_path):
    of_run = ["task=toy", "schedule=warmup_cosine", "schedule.warmup=0.2", "log_every=5", "valid.every=5"]
    for more in ([], ["stop_after=15"], ["stop_after=41"], ["stop_after=0"]):
        code, _, err = command(*of_run, "steps=40", "measure.every=0", "seed=3", *more)
        if more[-1:] in (["stop_after=41"], ["stop_after=0"]):
            assert code == 2
            assert f"stop_after must be a step from 1 to the 40 of steps, or null, got {more[0][11:]}" in err
        else:
            assert code == 0, err
    whole, part = sorted(folders(tmp_path), key=lambda folder: -len(rows_of(folder)))
    assert [row["step"] for row in rows_of(part)] == [0, 5, 10, 15, 15]
    assert rows_of(part)[:-1] == [row for row in rows_of(whole) if row["step"] <= 15]
    assert json.loads((part / "summary.json").read_text())["steps"] == 15


def test_a_new_option_leaves_the_names_of_earlier_runs_as_they_were():
    config = plain_config(composed("task=toy"))
    assert config["stop_after"] is None
    assert key_of(config) == key_of({k: v for k, v in config.items() if k != "stop_after"})
    assert key_of(config) != key_of(config | {"stop_after": 10})
    assert with_new_settings({k: v for k, v in config.items() if k not in NEW_OPTIONS}) == config


def test_a_new_option_of_an_estimator_leaves_the_names_of_earlier_runs_as_they_were():
    config = plain_config(composed("task=toy", "estimator=reinforce"))
    before = config | {"estimator": {k: v for k, v in config["estimator"].items() if k != "normalise"}}
    assert key_of(config) == key_of(before)
    assert with_new_settings(before) == config == with_new_settings(config)
    divided = config | {"estimator": config["estimator"] | {"normalise": "group"}}
    assert key_of(divided) != key_of(config)
    assert with_new_settings(divided) == divided
    own = config | {"estimator": config["estimator"] | {"_target_": "mine.Reinforce"}}
    assert key_of(own) != key_of(own | {"estimator": before["estimator"] | {"_target_": "mine.Reinforce"}})


def test_a_schedule_may_be_stated_as_a_share_of_the_run():
    config = plain_config(
        composed("task=toy", "steps=300", "estimator.over=${share:0.5}", "estimator.annealing=cosine")
    )
    assert config["estimator"]["over"] == 150
    in_steps = plain_config(composed("task=toy", "steps=300", "estimator.over=150", "estimator.annealing=cosine"))
    assert key_of(in_steps) == key_of(config)


@pytest.mark.parametrize("share", [0, 1.5, -1, "half"])
def test_a_share_beyond_the_run_is_refused(share):
    with pytest.raises(Refused, match=r"estimator\.over: .*share must be a number above 0 and at most 1, got"):
        check_interpolations(composed("task=toy", f"estimator.over=${{share:{share}}}"))


def test_new_options_have_the_values_that_change_nothing_by_default():
    for target, new in NEW_SETTINGS.items():
        found = inspect.signature(get_class(target)).parameters
        assert new == {option: found[option].default for option in new}


def test_seconds_up_to_a_checkpoint_are_in_it():
    """Not only those up to the last row: what is interrupted took as long as it took."""
    state, cfg = started("estimator=reinforce", *SHORT, "steps=10", "log_every=10", "valid.every=0", "measure.every=0")
    at_checkpoints = []
    train(state, cfg, lambda *_: None, lambda last: at_checkpoints.append(state.seconds))
    assert len(at_checkpoints) == 11
    assert at_checkpoints == sorted(set(at_checkpoints)), "it grows with every step"
    assert at_checkpoints[-1] > 0.5 * state.seconds


@pytest.mark.parametrize(("returned", "got"), [(None, "None"), ({"cost": torch.zeros(())}, "tensor(0.) in it")])
def test_an_evaluation_that_is_none_is_named(returned, got):
    state, cfg = started("task=toy", "estimator=reinforce", "steps=1")
    state.task.evaluate = lambda split: returned
    with pytest.raises(TypeError) as raised:
        train(state, cfg, lambda *_: None)
    must = "Toy.evaluate must return a dictionary of numbers (of a tensor x, float(x))"
    assert str(raised.value) == f"{must}, got {got}"


def test_a_problem_that_is_none_is_named(monkeypatch):
    monkeypatch.setattr(Toy, "problem", lambda self, batch: (1, 2))
    with pytest.raises(Refused, match=r"Toy.problem must return a hardmax.tasks.base.Problem, got tuple"):
        started("task=toy", "estimator=reinforce")


@pytest.mark.parametrize(("make", "name"), [(Toy, "goal"), (Polynomial, "target"), (Quadratic, "start")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "abc", True, None])
def test_what_is_no_number_is_refused_by_name(make, name, value):
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be a finite number, got {value!r}"):
        make(**{name: value})
