r"""The options at the top level of the config: their types, what they mean, and the help text."""

import re
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from hardmax.checks import is_number

EVERY_RIVAL = ("all", "worth_trying")  # of measure.rivals: every estimator, and every setting worth trying of each
# Where jobs of a sweep run, and what searches: the choices that are the project's, among all that Hydra has.
CHOICES_OFFERED = {
    "hydra/launcher": ["joblib", "ray", "serial", "slurm", "submitit_local"],
    "hydra/sweeper": ["search"],
}


class WandbMode(Enum):
    online = "online"
    offline = "offline"
    disabled = "disabled"


class Detail(Enum):
    short = "short"
    full = "full"


class Budget(Enum):
    full = "full"
    small = "small"


def option(default: Any, help: str) -> Any:
    return field(default_factory=lambda: default, metadata={"help": help})


@dataclass
class Valid:
    every: int = option(500, "steps between evaluations on the validation split; 0: only before and after training")


@dataclass
class Measure:
    every: int = option(500, "steps between gradient statistics; 0: none")
    draws: int = option(100, "independent gradient draws M behind each statistic, at least 2")
    outcomes: bool = option(
        False, "every outcome of discrete draws in place of random ones, with batch_size=1; draws are of other noise"
    )
    precision: float | None = option(
        None, "go on beyond draws, until the standard error of variances is at most this share of them"
    )
    reference: str = option("local_expectation", "unbiased estimator behind biases where no gradient is exact")
    reference_draws: int = option(0, "draws of the reference; 0: no bias where no gradient is exact")
    batches: int = option(0, "minibatches behind minibatch and total noise, two draws each, at least 2; 0: none")
    running_decay: float = option(0.0, "decay of running moments along training, 0.999 in papers; 0: none")
    rivals: Any = option(
        [], "other estimators to measure: a list such as [arsm,{reinforce:{samples:4}}], all, or worth_trying"
    )
    rival_steps: int = option(100, "training steps of rivals that learn, before each measurement")


@dataclass
class Wandb:
    mode: WandbMode | None = option(None, "online, offline or disabled; null: WANDB_MODE, else online where possible")
    project: str = option("hardmax", "W&B project")
    entity: str | None = option(None, "W&B user or team; null: your default")
    group: str | None = option(None, "W&B group; null: one for the runs that differ in their seed alone")
    tags: list[str] = option([], "W&B tags, such as [first,second]; task and estimator are added")
    detail: Detail = option(Detail.short, "columns that W&B gets: short, the twelve that say most, or full, all")
    system: bool = option(False, "let W&B record use of processor, memory and GPU")
    console: bool = option(False, "let W&B keep what the run prints")
    artifact: bool = option(
        False, "give W&B the final checkpoint, from which measure.py wandb:ENTITY/PROJECT/RUN starts"
    )


@dataclass
class Options:
    experiment: str | None = option(None, "published experiment whose settings these are; experiment=NAME chooses one")
    budget: Budget = option(Budget.full, "of an experiment: full, as published, or small, a stated share of the steps")
    seed: int = option(0, "seed of the model, the data order and the draws")
    steps: int = option(5000, "optimiser steps")
    stop_after: int | None = option(
        None, "step after which to end, while schedules are those of all steps; null: after all of them"
    )
    patience: int = option(
        0, "validations without a better one that end a run, which then has the parameters of the best; 0: none do"
    )
    batch_size: int = option(100, "examples per step")
    device: str = option("auto", "auto, cpu, cuda or a GPU such as cuda:1; else jobs of a sweep take GPUs in turns")
    threads: int = option(1, "CPU threads; results differ in the last bits between thread counts")
    output: str = option("output", "folder under which every run makes its own")
    fresh: bool = option(False, "run again, in a new folder, what has already finished")
    retry: bool = option(False, "go on with a run that has failed, from its last checkpoint")
    checkpoint_every: float = option(60.0, "seconds between checkpoints")
    name: str | None = option(None, "name of the run; null: task, estimator, seed, key and what a sweep varies")
    notes: str | None = option(None, "free text kept with the run")
    extra: dict[str, Any] = option({}, "keys of your own, such as +extra.width=64, for other options to refer to")
    log_every: int = option(50, "steps between rows of the training loss")
    compile: bool = option(False, "compile the training step with torch.compile, for long runs")
    detect_anomaly: bool = option(False, "let PyTorch look for the operation that made a NaN (slow)")
    valid: Valid = field(default_factory=Valid)
    measure: Measure = field(default_factory=Measure)
    wandb: Wandb = field(default_factory=Wandb)
    estimator: Any = MISSING
    task: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    logger: Any = field(default_factory=dict)  # none, but for what the config chooses
    data: Any = None  # chosen by the tasks that take data


def help_lines(schema: type = Options, prefix: str = "") -> list[str]:
    r"""One line for each option: its name, default and meaning."""
    lines = []
    for f in fields(schema):
        if isinstance(f.type, type) and is_dataclass(f.type):
            lines += help_lines(f.type, f"{prefix}{f.name}.")
        elif "help" in f.metadata:
            assert callable(f.default_factory)
            default = f.default_factory()
            default = "null" if default is None else default.value if isinstance(default, Enum) else default
            default = str(default).lower() if isinstance(default, bool) else default
            lines.append(f"  {f'{prefix}{f.name}={default}':<38} {f.metadata['help']}")
    return lines


HELP = """\
hardmax: gradients through categorical choices. One run, or with -m a sweep:

  python run.py estimator=arsm task=dvae seed=3
  python run.py -m estimator=reinforce,arsm seed=1,2,3 hydra/launcher=joblib
  python run.py -m experiment=yin2019_figure1      (a published experiment; budget=small for a part of its steps)
  python run.py -m experiment=yin2019_figure1 --dry-run      (its jobs, and how long they will take)
  python run.py -m estimator=arsm,reinforce hydra.sweeper.space=default --wandb-sweep      (the file of a W&B sweep)
  python run.py --cfg job --resolve      (every option, without running; of an experiment, of its first job)

Groups (write group=choice, and group.option=value for what a choice takes):

$APP_CONFIG_GROUPS
Where the jobs of a sweep run, and a search in place of one:

{offered}

Options:

{options}
  optimizer.lr                           learning rate of the model
  optimizer.estimator_lr                 learning rate of an estimator's learned parts; null: the model's
  logger=NAME or 'logger=[NAME,NAME]'    where rows go beside the run's files: wandb, tensorboard, mlflow, csv; []: none
  schedule.*                             how the model's learning rate changes in the course of a run
  data.*                                 binarisation, folder of the files, number of validation images (valid)
  settings='NAME=VALUE NAME=VALUE'       several options in one word, as a W&B sweep has them in one parameter
  task.variables, task.categories        latent size: K variables of C categories
"""


@cache
def register() -> None:
    r"""Makes the schema and the help text known to Hydra."""
    OmegaConf.register_new_resolver("by_budget", by_budget, replace=True)
    OmegaConf.register_new_resolver("share", share_of_steps, replace=True)
    store = ConfigStore.instance()
    store.store(name="options", node=Options)
    offered = "\n".join(f"{group}: {', '.join(names)}" for group, names in CHOICES_OFFERED.items())
    template = HELP.format(options="\n".join(help_lines()), offered=offered)
    store.store(group="hydra/help", name="hardmax", node={"app_name": "hardmax", "template": template})


def by_budget(full: Any, small: Any, *, _root_: DictConfig) -> Any:
    r"""What ``${by_budget:FULL,SMALL}`` in a config stands for, according to ``budget``."""
    return small if _root_.get("budget") == Budget.small else full


def share_of_steps(share: Any, *, _root_: DictConfig) -> int:
    r"""What ``${share:0.5}`` in a config stands for: that share of the run's steps, at least one."""
    if not is_number(share) or not 0 < share <= 1:
        raise ValueError(f"share must be a number above 0 and at most 1, got {share!r}")
    return max(1, round(share * _root_.steps))


WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list such as [first,second]",
    dict[str, Any]: "one key of your own at a time, such as +extra.width=64,",
}
OTHER_TYPES = {
    "of type '.*' could not be converted to Integer": int,
    "of type '.*' could not be converted to Float": float,
    "is not a valid bool": bool,
}


def expected(key: str) -> str | None:
    r"""What an option of the schema accepts, in words; None for one of a group."""
    schema: Any = Options
    for part in key.split("."):
        found = {f.name: f.type for f in fields(schema)} if is_dataclass(schema) else {}
        schema = found.get(part)
    if is_dataclass(schema):
        return f"it has options of its own: {', '.join(f'{key}.{f.name}' for f in fields(schema))}"
    types = [schema, *get_args(schema)]
    for kind in types:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return f"one of {', '.join(kind.__members__)} is expected"
    return next((f"{WORDS[kind]} is expected" for kind in types if kind in WORDS), None)


def what_is_expected(cause: str) -> str:
    r"""What OmegaConf says against a value of another type, as what is expected; all else as it is."""
    for pattern, kind in OTHER_TYPES.items():
        cause = re.sub(f"Value '.*' {pattern}.*", f"{WORDS[kind]} is expected", cause)
    return cause
