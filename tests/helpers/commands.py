"""Runs and their configs within the test's process, and what their folders hold."""

import functools
import json

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from torch.utils._python_dispatch import TorchDispatchMode

from hardmax.harness import app, options
from hardmax.harness.config import build
from hardmax.harness.measuring import reference_and_rivals
from hardmax.harness.train import prepare, train
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


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def folders(where):
    return sorted(p.parent for p in where.rglob("metrics.jsonl"))


def sampled_kl(estimator, task):
    """What a bound needs where there is a KL divergence; the toy has none to leave outside."""
    return ["task.kl=sampled"] if estimator in ("vimco", "reweighted_wake_sleep") and task != "toy" else []


class Reads(TorchDispatchMode):
    """Notes every operation that makes a value, or a size, known to Python."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.found += [name for name in self.READS if function.__name__.split(".")[0] == name]
        return function(*arguments, **(keywords or {}))


def assert_no_reads_between_rows(state, cfg):
    """Trains a state that has just begun, and counts: as many reads in two steps and a row as in four and a row."""
    state.task.evaluate = lambda split: {}
    counts = []
    for cfg.steps in (1, 3, 7):
        with Reads() as reads:
            train(state, cfg, lambda *_: None)
        counts.append(len(reads.found))
    assert counts[1] == counts[2], f"{counts[2] - counts[1]} reads in two more steps: {reads.found}"
