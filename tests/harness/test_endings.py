"""How a run ends: with finite parameters and figures, or by an error; whatever can be shown of it."""

from types import SimpleNamespace

import pytest
import torch

from hardmax.harness.train import NotFinite, train
from hardmax.tasks.base import Figure
from hardmax.tasks.dvae import DiscreteVAE
from hardmax.tasks.toy import Toy
from helpers.commands import SHORT, folders, started

LIGHT = [*SHORT, "measure.every=0", "wandb.mode=disabled"]


def test_networks_that_are_not_finite_fail_the_run_though_draws_hide_it(command, tmp_path):
    options = ["task.variables=4", "task.categories=3", "task.bound_samples=2", "batch_size=20"]
    options += ["estimator.temperature=1e-38", "optimizer.lr=0.1", "steps=60", "log_every=20", "measure.every=0"]
    code, _, err = command("task=structured", "estimator=reinmax", *options, "wandb.mode=disabled")
    assert code == 1
    assert "the cost of step 7 is not finite (estimator ReinMax, task Structured)" in err
    (folder,) = folders(tmp_path)
    assert not (folder / "summary.json").exists()


@pytest.mark.parametrize("part", ["task", "estimator"])
def test_any_parameter_that_is_not_finite_ends_a_run(part):
    state, cfg = started("estimator=nvil", *LIGHT, "log_every=5", "valid.every=0")
    getattr(state, part).unused = torch.nn.Parameter(torch.tensor([0.0, torch.nan]))
    name = "unused" if part == "task" else "estimator.unused"
    with pytest.raises(NotFinite, match=f"a parameter after step 5 is not finite.*parameters {name}:"):
        train(state, cfg, lambda *_: None)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_figure_that_is_not_finite_ends_a_run_with_its_step_named(split):
    state, cfg = started("estimator=reinforce", *LIGHT, "valid.every=10")
    step = {"valid": 10, "test": 20}[split]
    state.task.evaluate = lambda of: {"elbo": float("nan") if of == split and state.step == step else 0.0}
    with pytest.raises(NotFinite, match=f"{split}/elbo after step {step} is not finite"):
        train(state, cfg, lambda *_: None)


@pytest.mark.parametrize(
    "shown", [lambda self: 1 / 0, lambda self: {"picture": torch.zeros(3)}, lambda self: {"table": []}]
)
def test_a_picture_that_fails_does_not_fail_a_finished_training(command, tmp_path, monkeypatch, shown):
    monkeypatch.setattr(DiscreteVAE, "show", shown)
    code, _, err = command("estimator=reinforce", *LIGHT)
    assert code == 0
    assert "no examples of the model were kept: " in err
    (folder,) = folders(tmp_path)
    assert (folder / "summary.json").is_file()
    assert not (folder / "failed.txt").exists()


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({}, "figures is empty: say Figure"),
        ({"Gap": Figure("gap", better="lower")}, "figures has 'Gap': names must be of small letters"),
        ({"gap": Figure("gap")}, "none of the figures gap says better='higher' or 'lower'"),
        (Toy.figures, ""),
    ],
)
def test_a_run_warns_of_figures_that_no_report_can_use(command, monkeypatch, figures, line):
    monkeypatch.setattr(Toy, "figures", figures)
    code, _, err = command("task=toy", "estimator=exact", "steps=2", "measure.every=0", "wandb.mode=disabled")
    assert code == 0
    assert err.count("warning: task=toy: ") == bool(line)
    assert line in err


def test_a_decoder_of_any_kind_generates():
    vae = DiscreteVAE(2, 3, [8], [8], bound_samples=1)
    vae.decoder = torch.nn.ModuleDict({"own": vae.decoder})
    assert vae.generated(7).shape == (7, 2, 3)


@pytest.mark.parametrize(("estimator", "disabled"), [("reinforce", 0), ("rebar", 2)])
def test_what_cannot_be_compiled_is_left_out_of_compiled_steps(estimator, disabled, monkeypatch):
    """And nothing else: neither an estimator that can be, nor one of two layers."""
    left_out = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch.compiler, "disable", lambda function: left_out.append(function.__self__) or function)
    state, cfg = started(f"estimator={estimator}", *LIGHT, "task.layers=2", "compile=true", "steps=1")
    left_out.clear()
    train(state, cfg, lambda *_: None)
    assert left_out == [state.estimator, *state.task.inner][:disabled]


def test_compiled_steps_are_graphs_on_a_gpu_with_the_draws_of_an_uncompiled_run(monkeypatch):
    asked = []

    def compiled(function, options):
        asked.append(options)
        raise StopIteration

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch, "full", lambda *_, **__: None)  # which would need that GPU
    state, cfg = started("estimator=reinforce", *LIGHT, "compile=true", "steps=1")
    for device in ("cpu", "cuda"):
        state.window = SimpleNamespace(device=torch.device(device))
        with pytest.raises(StopIteration):
            train(state, cfg, lambda *_: None)
    of_mode = torch._inductor.list_mode_options("reduce-overhead")
    assert asked == [{"fallback_random": True}, {"fallback_random": True, **of_mode}]
