r"""What an experiment's file says, and which runs were made as it says."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from hardmax.harness import options
from hardmax.harness.contents import flat, text
from hardmax.paths import CONFIGS
from hydra_plugins.hardmax_rows import crossed

from ..groups import WATCHING
from ..runs import Run
from ..settings import same
from .values import Value, content_of

NOT_SAID = ("defaults", "hydra", "output")  # parts of an experiment's file that are no settings
UNRECORDED = ("data.folder",)  # by a run


@dataclass(frozen=True)
class Experiment:
    r"""What an experiment's file says.

    Attributes:
        rows: Settings that belong together, as text by dotted key; estimator and task by their last names.
        said: All settings of each row at the full budget that the file states.
        defaults: Those of each row that it leaves to the groups, such as the optimiser's.
        params: Options that are swept whatever the row, with their values.
        about: The comment at the head of the file.
    """

    rows: list[dict[str, str]]
    said: list[dict[str, str]]
    defaults: list[dict[str, str]]
    params: dict[str, list[str]]
    about: str


@functools.cache
def experiment(name: str) -> Experiment | None:
    r"""The experiment of this name; None if it is a user's own."""
    path = CONFIGS / f"experiment/{name}.yaml"
    if not re.fullmatch(r"\w{1,99}", name) or not path.is_file():
        return None
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    options.register()  # what ${by_budget:...} means: in full, where no budget is said
    sweeper = config.hydra.sweeper
    params = {key: str(values).split(",") for key, values in (sweeper.get("params") or {}).items()}
    table = crossed([], sweeper.get("rows"), None, OverridesParser.create())
    choices = {key.split("/")[-1]: choice for entry in config.defaults for key, choice in entry.items()}
    kept = [str(key) for key in config if key not in NOT_SAID]
    own = OmegaConf.to_container(OmegaConf.masked_copy(config, kept), resolve=True)
    assert isinstance(own, dict)
    rows, said, defaults = [], [], []
    for row in table:
        chosen = {group: row.get(group, choice) for group, choice in choices.items() if group != "sweeper"}
        rows.append({key: text(yaml.safe_load(Path(content).name)) for key, content in row.items()})
        said.append(settings_that_matter({**flat(own), **rows[-1], "budget": "full"}, params))
        defaults.append(
            settings_that_matter(
                {k: v for group, choice in chosen.items() for k, v in group_settings(group, choice)}, params
            )
        )
    lines_ = path.read_text("utf-8").splitlines()[1:]
    head = [line[2:] for line in lines_[: next(n for n, line in enumerate(lines_) if not line.startswith("#"))]]
    return Experiment(rows, said, defaults, params, "\n".join(head))


@functools.cache
def group_settings(group: str, choice: str) -> list[tuple[str, str]]:
    r"""Settings of a choice of a config group, as text by dotted key; without those that refer to others."""
    content = content_of(CONFIGS / group / f"{choice}.yaml")
    content.pop("defaults", None)
    return [(f"{group}.{key}", value) for key, value in flat(content).items() if "${" not in value]


def settings_that_matter(settings: dict[str, str], params: dict[str, list[str]]) -> dict[str, str]:
    r"""Those on which results hang, and which are not swept whatever the row."""
    skipped = lambda key: key in params or key.startswith(WATCHING) or key in UNRECORDED
    return {key: value for key, value in settings.items() if not skipped(key)}


def deviations(run: Run) -> list[str]:
    r"""Settings in which a run of an experiment is not what the experiment says, in words; none: it counts in full."""
    found = experiment(run.config.get("experiment", ""))
    if found is None:
        return []
    early = run.config.get("stop_after", "null")
    each = [
        [f"stop_after={early}"] * (early != "null")
        + [f"{k}={run.config.get(k, 'absent')}" for k, v in said.items() if not same(v, run.config.get(k))]
        # An older run may lack an option that has come since.
        + [
            f"{k}={run.config[k]}"
            for k, v in defaults.items()
            if k in run.config and k not in said and not same(v, run.config[k])
        ]
        for row, said, defaults in zip(found.rows, found.said, found.defaults, strict=True)
        if fits(run, row)
    ]
    return min(each, key=len, default=["no row of the experiment"])


def other_settings(run: Run) -> list[str]:
    r"""Deviations beyond those of the small budget, which changes steps and how many draws figures are made of."""
    budget = ("budget=", "steps=", "task.test_samples=", "measure.")
    return [d for d in deviations(run) if not d.startswith(budget)]


def in_small(run: Run) -> bool:
    r"""Whether a run was made under all settings but those of the budget."""
    return run.config.get("budget") == "small" and not other_settings(run)


def fits(run: Run, where: dict[str, str]) -> bool:
    r"""Whether a run has the settings."""
    return all(same(value, run.config.get(key)) for key, value in where.items())


def ran_in_full(run: Run) -> bool:
    return run.config.get("budget", "full") == "full" and not deviations(run)


def was_run_as_published(run: Run, value: Value) -> bool:
    r"""Whether a run was made under all published settings, as far as the step of the value."""
    if ran_in_full(run) or not value.experiment:
        return run.config.get("budget", "full") == "full"
    # The first steps of a longer run are the same, unless what is left of them sets the learning rate.
    differ = [d.partition("=")[0] for d in deviations(run)]
    steady = run.config.get("schedule._target_") == "hardmax.harness.schedules.Constant"
    shorter = differ == ["stop_after"] or (differ == ["steps"] and steady)
    return shorter and run.config.get("budget") == "full" and value.step is not None
