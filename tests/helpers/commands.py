"""Runs and their configs within the test's process, and what their folders hold."""

import functools
import importlib.util
import json

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra

from hardmax.harness import app, options
from hardmax.harness.config import build
from hardmax.harness.measuring import reference_and_rivals
from hardmax.harness.train import prepare
from hardmax.paths import ROOT
from helpers import cases

ESTIMATORS = sorted(p.stem for p in (ROOT / "configs/estimator").glob("*.yaml"))
SMALL = ["task.variables=2", "task.categories=3", "task.encoder_widths=[16]", "task.decoder_widths=[16]"]
SHORT = [*SMALL, "task.bound_samples=5", "steps=20", "batch_size=20", "measure.draws=4", "log_every=5"]


def composed(*overrides):
    options.register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(app.CONFIGS), version_base="1.3"):
        return hydra.compose("config", [*overrides])


def started(*overrides, device="cpu"):
    options.register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(app.CONFIGS), version_base="1.3"):
        cfg = hydra.compose("config", [*overrides])
        torch.manual_seed(cfg.seed)
        task, estimator = build(cfg, "task", "task"), build(cfg, "estimator", "estimator")
        return prepare(cfg, task, estimator, torch.device(device), *reference_and_rivals(cfg)), cfg


composed_once = functools.cache(composed)


def started_with(estimator, *overrides):
    """As ``started``, of the estimator with its own settings; all else is composed once for all estimators."""
    cfg = composed_once(*overrides)
    torch.manual_seed(cfg.seed)
    state = prepare(cfg, build(cfg, "task", "task"), cases.build((estimator, {})), torch.device("cpu"))
    return state, cfg.copy()


def installed(plugin):
    return importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def folders(where):
    return sorted(p.parent for p in where.rglob("metrics.jsonl"))


def sampled_kl(estimator, task):
    """What a bound needs where there is a KL divergence; the toy has none to leave outside."""
    return ["task.kl=sampled"] if cases.build((estimator, {})).target == "bound" and task != "toy" else []
