r"""The file of a sweep that W&B runs: ``run.py -m ... --wandb-sweep``.

W&B knows no options that only some of the jobs have. So what a job has of its own is one parameter, ``settings``, which
:mod:`run.py <hardmax.harness.app>` reads as several options.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig

from .config import build
from .shared import Refused
from .sources import located

CHOOSES = re.compile(r"[\w/]+=")  # an option without dots, as the choice of an estimator is: those come first
GOALS = {"higher": "maximize", "lower": "minimize"}  # in W&B's words


def sweep_file(jobs: Sequence[Sequence[str]], cfg: DictConfig) -> str:
    r"""A sweep over jobs as W&B reads it, YAML: a grid, with what all jobs share in its command.

    Arguments:
        jobs: Overrides of each.
        cfg: The config of any of them, whose task says which figure is to be better.
    """
    shared = [line for line in jobs[0] if all(line in job for job in jobs)]
    own = [[line for line in job if line not in shared] for job in jobs]
    settings = dict.fromkeys(shlex.join(sorted(each, key=lambda line: not CHOOSES.match(line))) for each in own)
    program = Path(sys.argv[0])
    in_checkout = program.name == "run.py"
    start = ["${interpreter}", "${program}"] if in_checkout else ["${program}", "run"]
    flags = [argument for argument in sys.argv[1:] if argument.startswith("--config-dir")]
    try:
        figures = build(cfg, "task", str(cfg.task._target_)).figures.items()
    except Refused:  # for want of its data, which need not be on this machine
        figures = located(cfg.task._target_).figures.items()
    judged = next(((name, about.better) for name, about in figures if about.better), None)
    content = {
        "program": str(program) if in_checkout else "hardmax",
        "method": "grid",
        **({"metric": {"name": f"valid/{judged[0]}", "goal": GOALS[judged[1]]}} if judged else {}),
        "parameters": {"settings": {"values": [*settings]}},
        "command": ["${env}", *start, *flags, *shared, "${args_no_hyphens}"],
    }
    return yaml.safe_dump(content, sort_keys=False, width=1000)
