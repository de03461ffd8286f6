"""The page of every estimator on every task: trained for some steps, or refused in one line that says why.

Run it as ``python -m benchmarks.matrix docs/matrix.md``; it takes about half a second of processor time for each pair.
"""

import functools
import math
import os
import re
import string
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hardmax import markdown
from hardmax.estimators import Exact
from hardmax.harness import options
from hardmax.harness.config import build
from hardmax.harness.measuring import nest_and_try
from hardmax.harness.shared import Refused
from hardmax.harness.train import NotFinite, prepare, train
from hardmax.paths import CONFIGS

ESTIMATORS, TASKS = (sorted(p.stem for p in (CONFIGS / group).glob("*.yaml")) for group in ("estimator", "task"))
STEPS, BATCH = 100, 5
SIZES = {  # of options that tasks have, so that a hundred steps take a second
    "variables": 2, "categories": 3, "bound_samples": 1, "test_samples": 1, "widths": [8], "encoder_widths": [8],
    "decoder_widths": [8], "router_widths": [8], "style": 2, "length": 4, "vocabulary": 4, "width": 8, "samples": 2,
    "experts": 4, "arms": 4, "features": 3, "tokens": 5, "components": 4, "points": 20, "dimensions": 3,
}  # fmt: skip
OF_TASK: dict[str, dict] = {
    "semi_supervised": {"categories": 10},  # ten classes
    "gates": {"widths": [10]},  # ten classes too
    "episode": {"environment.limit": 20},
}
SAMPLED = "task.kl=sampled"
YES, WITH_SAMPLED = "✓", "s"
HEAD = """\
# Every estimator on every task

What becomes of `python run.py estimator=NAME task=NAME`, for every choice of both with the options that its config has:
{steps} steps of {batch} examples, at sizes that the last section lists, or a refusal before the first step.

* {yes}: it trains, and every figure stays finite.
* a letter: it is refused, for the reason of that letter [below](#why-some-are-refused); with {sampled} after it, it
  trains with `{option}`.
* {yes} and a letter: it trains at the small size, and is refused at that of the task's config.

What small sizes do not show is memory: where an estimator is nested in its own objective, as in `generation`,
evaluations multiply from layer to layer.

"""
FOOT = "\nWritten by `make matrix`, torch {torch}.\n"


class Pair(NamedTuple):
    r"""What becomes of an estimator on a task.

    Attributes:
        refusal: Why it is refused at the small size; empty if it trains.
        sampled: Whether it then trains with a sampled KL divergence.
        at_size: Why it is refused at the size of the task's config; empty if it is not, or that has not been tried.
    """

    refusal: str = ""
    sampled: bool = False
    at_size: str = ""

    def general(self) -> "Pair":
        r"""The same without the numbers of the case, by which reasons are grouped."""
        refusal, at_size = (re.sub(r"\d[\d^.]*", "N", reason) for reason in (self.refusal, self.at_size))
        return self._replace(refusal=refusal, at_size=at_size)


@functools.cache
def config(task: str, *overrides: str) -> DictConfig:
    r"""The config of a short run on a task."""
    options.register()
    GlobalHydra.instance().clear()
    short = [f"steps={STEPS}", f"batch_size={BATCH}", f"log_every={STEPS}", "valid.every=0", "measure.every=0"]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose("config", [f"task={task}", *short, "wandb.mode=disabled", *overrides])


@functools.cache
def small(task: str) -> tuple[str, ...]:
    r"""Overrides that make a task small: of the options that it has, those that :data:`SIZES` knows."""
    known = OmegaConf.load(CONFIGS / "task" / f"{task}.yaml")
    sizes = {k: v for k, v in SIZES.items() if k in known} | OF_TASK.get(task, {})
    return tuple(f"task.{k}={v}".replace(" ", "") for k, v in sizes.items())


@functools.cache
def task_of(task: str, *overrides: str):
    torch.manual_seed(0)
    return build(config(task, *overrides), "task", task)


def estimator_of(name: str):
    return instantiate(OmegaConf.load(CONFIGS / "estimator" / f"{name}.yaml"))


def refusal(estimator: str, task: str, *overrides: str) -> str:
    r"""Why an estimator is refused on a task, without its name; empty if it is not."""
    model, made = task_of(task, *overrides), estimator_of(estimator)
    index = torch.arange(BATCH) if model.examples else torch.zeros(BATCH, dtype=torch.long)
    torch.manual_seed(0)
    try:
        nest_and_try(model, made, model.batch(index, torch.Generator().manual_seed(0)))
    except Refused as error:
        name = type(made).__name__
        return re.sub(rf"\b{name}\b", "it", str(error).removeprefix(f"{name}: "))
    return ""


def refusals(estimator: str, task: str) -> Pair:
    r"""What is refused before any training, and whether with a sampled KL divergence it is not."""
    found, sampled = refusal(estimator, task, *small(task)), False
    if found and SAMPLED.partition("=")[0].removeprefix("task.") in config(task).task:
        sampled = not refusal(estimator, task, *small(task), SAMPLED)
    if found or "**" not in estimator_of(estimator).evaluations:  # all others take any size
        return Pair(found, sampled)
    return Pair(at_size=refusal(estimator, task) if has_many_configurations(task) else "")


@functools.cache
def has_many_configurations(task: str) -> bool:
    r"""Whether the variables of a task have more, at the size of its config, than are enumerated by default."""
    model = task_of(task)
    K, C = model.problem(model.measurement_batch(1)).logits.shape[-2:]
    return K * (1 + model.nested) * math.log(C) > math.log(Exact().limit)


def trained(estimator: str, task: str) -> Pair:
    r"""What becomes of a pair, training included."""
    found = refusals(estimator, task)
    if found.refusal and not found.sampled:
        return found
    overrides = (*small(task), *[SAMPLED] * found.sampled)
    cfg = config(task, *overrides)
    torch.manual_seed(0)
    try:
        state = prepare(cfg, build(cfg, "task", task), estimator_of(estimator), torch.device("cpu"))
        train(state, cfg.copy(), lambda *_: None)
    except NotFinite as error:
        return Pair(f"it does not stay finite: {error}")
    return found


def trained_one(names: tuple[str, str]) -> Pair:
    torch.set_num_threads(1)
    return trained(*names)


def written(pairs: dict[tuple[str, str], Pair]) -> str:
    r"""The page."""
    reasons: dict[str, str] = {}  # the first of each kind
    for pair in pairs.values():
        for kind, reason in zip(pair.general()[::2], pair[::2], strict=True):
            reasons.setdefault(kind, reason)
    del reasons[""]
    letter = dict(zip(reasons, string.ascii_lowercase.replace(WITH_SAMPLED, ""), strict=False))

    def cell(pair: Pair) -> str:
        refusal, sampled, at_size = pair.general()
        if refusal:
            return f"{letter[refusal]} {WITH_SAMPLED}" if sampled else letter[refusal]
        return f"{YES} {letter[at_size]}" if at_size else YES

    rows = [[f"`{e}`", *(cell(pairs[e, t]) for t in TASKS)] for e in ESTIMATORS]
    told = [f"* {letter[kind]}: {markdown.literal(reason)}\n" for kind, reason in reasons.items()]
    sizes = [[f"`{t}`", " ".join(f"`{o}`" for o in small(t)) or "as in its config"] for t in TASKS]
    head = HEAD.format(steps=STEPS, batch=BATCH, yes=YES, sampled=WITH_SAMPLED, option=SAMPLED)
    return (
        head
        + markdown.table(["", *(f"`{t}`" for t in TASKS)], rows)
        + "\n## Why some are refused\n\n"
        + "".join(told)
        + "\n## Sizes\n\n"
        + markdown.table(["`task=`", "options"], sizes)
        + FOOT.format(torch=torch.__version__.partition("+")[0])
    )


def read(page: str) -> dict[tuple[str, str], Pair]:
    r"""What the page says of each estimator and task, in general."""
    told = dict(re.findall(r"^\* (\w): (.*)$", page, re.MULTILINE))
    reasons = {"": ""} | {letter: re.sub(r"\\(.)", r"\1", reason) for letter, reason in told.items()}
    table = page.partition("\n\n|")[2].partition("\n\n")[0]
    titles, _, *rows = ([cell.strip(" `|") for cell in line.split(" | ")] for line in table.splitlines())
    found = {}
    for estimator, *cells in rows:
        for task, cell in zip(titles[1:], cells, strict=True):
            mark, _, other = cell.partition(" ")
            pair = Pair(at_size=reasons[other]) if mark == YES else Pair(reasons[mark], other == WITH_SAMPLED)
            found[estimator, task] = pair.general()
    return found


def main() -> None:
    names = [(e, t) for t in TASKS for e in ESTIMATORS]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        pairs = {}
        for each, pair in zip(names, pool.map(trained_one, names), strict=True):
            pairs[each] = pair
            print(*each, pair.refusal or "trains", flush=True)
    Path(sys.argv[1]).write_text(written(pairs), encoding="utf-8")


if __name__ == "__main__":
    main()
