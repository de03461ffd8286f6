r"""Weights & Biases: what the files of a run hold is sent once, while the run goes on or afterwards.

A server that is away costs a run little time, and no figure.
"""

import contextlib
import csv
import io
import json
import os
import re
import secrets
import shlex
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from hardmax.files import open_regular, read_text, write_whole

from .logger import Logger
from .shared import CHECKPOINT, FIGURES, FINISHED, Refused, one_line

SECONDS_FOR_WANDB = 10  # seconds that W&B may keep a run waiting at either end
SECONDS_FOR_MODEL = 300  # seconds that it may take to end one whose checkpoint it gets
MODEL_FILES = ("config.yaml", CHECKPOINT, FIGURES, FINISHED, "environment.json")  # of a checkpoint at W&B
OWN_ID = "wandb.id"  # a file in the run's folder
MODES = {"online": "online", "offline": "offline", "disabled": "disabled", "run": "online", "dryrun": "offline"}
WANDB_BEST = {"higher": "max", "lower": "min"}  # in W&B's words
ENVIRONMENT = ("commit", "changed_files", "python", "versions", "platform", "device", "gpu")  # what W&B's config has
# Columns of a row that W&B gets by default, beside the first two figures of validation and test.
OF_GRADIENTS = ("variance", "relative_bias", "relative_bias_error", "snr", "dead")
TELLING = (
    *("step", "train/loss", "cost/evaluations", "cost/seconds"),
    *(f"gradient/encoder/{what}" for what in OF_GRADIENTS),
)


class WandbRun(Logger):
    r"""A run at W&B, or kept offline in a folder of W&B's own.

    What it is sent are the entries of a run's folder in their order: the rows, and after the last one with all tables
    and pictures. Those that the server has already are counted, and not sent again. Of a row the columns that say most
    are sent, all with ``wandb.detail=full``; the config has ``environment`` beside what the run's has.

    Arguments:
        folder: The run's own.
        config: The plain config, with ``choices``.
        mode: ``online`` or ``offline``.
        place: Where W&B keeps files of its own.
        patience: Seconds that W&B may keep the caller waiting at either end.

    Making one raises whatever W&B raises.
    """

    def __init__(self, folder: Path, config: dict, mode: str, place: Path, patience: float = SECONDS_FOR_WANDB):
        import wandb

        super().__init__(folder, config)
        own_id, asked = id_of(folder), config["wandb"]
        self.figures = figures_of(folder)
        self.full, self.keeps_model = asked.get("detail") == "full", bool(asked.get("artifact"))
        self.run = wandb.init(
            project=config["wandb"]["project"],
            entity=config["wandb"]["entity"],
            group=config["wandb"]["group"],
            tags=config["wandb"]["tags"],
            name=config["name"],
            notes=config["notes"],
            config={**config, "environment": environment_of(folder)},
            id=own_id,
            resume="allow" if mode == "online" else None,
            dir=place.resolve(),  # its service keeps the folder that it was started in
            mode="online" if mode == "online" else "offline",
            settings=wandb.Settings(
                init_timeout=patience,
                finish_timeout=max(patience, SECONDS_FOR_MODEL) if self.keeps_model else patience,
                finish_timeout_raises=True,
                silent=True,
                console="wrap" if asked.get("console") else "off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=not asked.get("system"),
            ),
        )
        if self.run.id != own_id:  # one of an agent's, which has ids of its own
            write_whole(folder / OWN_ID, self.run.id)
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")
        for name, better in self.figures.items():  # of a run of W&B's own sweep it reads the last value
            if better in WANDB_BEST and not self.run.sweep_id and (self.full or name in telling(self.figures)):
                self.run.define_metric(f"valid/{name}", step_metric="step", summary=f"{WANDB_BEST[better]},last")
        self.there = self.run.starting_step

    def take(self, row: dict) -> None:
        self.run.log(row if self.full else telling_part(row, self.figures))

    def send_examples(self, folder: Path) -> None:
        r"""All tables and pictures that the run has kept, as one entry."""
        if examples := examples_of(folder):
            if self.entries >= self.there:
                self.run.log(examples)
            self.entries += 1

    def summarise(self, summary: dict) -> None:
        r"""Final figures; of validation, W&B keeps the best and the last itself."""
        self.run.summary.update({k: v for k, v in summary.items() if k != "sizes" and not k.startswith("valid/")})

    def send_model(self, folder: Path, summary: dict) -> None:
        r"""The checkpoint as an artifact ``model-<id of the run>``, where that was asked for."""
        if not self.keeps_model:
            return
        import wandb

        about = environment_of(folder) | {k: v for k, v in summary.items() if k != "sizes"}
        model = wandb.Artifact(f"model-{self.run.id}", "model", metadata=about)
        for name in MODEL_FILES:
            model.add_file(str(folder / name), name=name, policy="immutable", skip_cache=True)
        self.run.log_artifact(model)

    def finish(self, exit_code: int) -> None:
        r"""Ends the run.

        Raises:
            ConnectionError, TimeoutError: If the server refused rows, or has not taken all of them in time.
        """
        log = Path(self.run.settings.log_internal)
        self.run.finish(exit_code=exit_code)
        if log.is_file() and "filestream: fatal error" in log.read_text("utf-8", "replace"):  # it is said nowhere else
            raise ConnectionError("the server refused rows")


def figures_of(folder: Path) -> dict[str, str]:
    r"""What a task says of its figures: ``higher``, ``lower`` or nothing by name; empty where nothing is said."""
    try:
        found = json.loads(read_text(folder / FIGURES))
        return {str(name): str(about["better"]) for name, about in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def environment_of(folder: Path) -> dict:
    r"""Commit, changed files, versions and device of a run, as far as its folder says."""
    try:
        found = json.loads(read_text(folder / "environment.json"))
        return {key: found[key] for key in ENVIRONMENT if key in found}
    except (OSError, ValueError, TypeError):
        return {}


def telling(figures: dict[str, str]) -> list[str]:
    r"""Of a task's figures those that say most: the first two that can be better or worse, else the first two."""
    return ([name for name, better in figures.items() if better] or [*figures])[:2]


def telling_part(row: dict, figures: dict[str, str]) -> dict:
    r"""The columns of a row that say most; figures all where nothing is said of them."""
    kept = {*TELLING, *(f"{split}/{name}" for split in ("valid", "test") for name in telling(figures))}
    unknown = ("valid/", "test/") if not figures else ()
    return {key: value for key, value in row.items() if key in kept or key.startswith(unknown)}


def id_of(folder: Path) -> str:
    r"""What W&B knows the run of a folder by: made once, and kept there."""
    if not (found := known_id(folder)):
        found = secrets.token_hex(4)
        write_whole(folder / OWN_ID, found)
    return found


def known_id(folder: Path) -> str:
    r"""What W&B knows the run of a folder by, as far as its folder says; empty if it does not."""
    try:
        found = read_text(folder / OWN_ID).strip()
    except OSError:
        return ""
    return found if re.fullmatch(r"[\w-]{1,64}", found, re.ASCII) else ""


def downloaded_model(name: str) -> Path:
    r"""The folder with the checkpoint of a run at W&B, ``ENTITY/PROJECT/RUN``.

    Raises:
        Refused: In one line, if there is none, or it holds other files than a checkpoint does.
    """
    import wandb

    entity, _, rest = name.partition("/")
    project, _, run = rest.partition("/")
    if not (entity and project and run) or "/" in run:
        raise Refused(f"wandb:{name}: wandb:ENTITY/PROJECT/RUN is expected, with the id of the run")
    try:
        artifact = wandb.Api(timeout=30).artifact(f"{entity}/{project}/model-{run}:latest", type="model")
        entries = artifact.manifest.entries
        if other := [key for key, entry in entries.items() if key not in MODEL_FILES or entry.ref]:
            raise Refused(f"wandb:{name}: its model has {other[0]}, which no checkpoint of a run has")
        return Path(artifact.download())
    except Refused:
        raise
    except Exception as error:
        hint = "runs have one with wandb.artifact=true"
        raise Refused(f"wandb:{name}: no model was found ({one_line(error)}); {hint}") from error


def example_files(folder: Path) -> list[Path]:
    r"""Tables and pictures in the folder of a run; what is no plain file is left out."""
    found = []
    for path in sorted(folder.glob("*.*")):
        if path.suffix in (".png", ".csv") and not path.name.startswith("measured"):
            with contextlib.suppress(OSError):
                open_regular(path).close()
                found.append(path)
    return found


def examples_of(folder: Path) -> dict:
    r"""Tables and pictures in the folder of a run, by name, as W&B has them."""
    import wandb

    found: dict[str, wandb.Image | wandb.Table] = {}
    for path in example_files(folder):
        if path.suffix == ".png":
            found[path.stem] = wandb.Image(str(path))
        elif rows := list(csv.reader(io.StringIO(read_text(path), newline=""))):
            found[path.stem] = wandb.Table(columns=[*rows[0]], data=rows[1:])
    return found


def wandb_mode(asked: str | None) -> str | None:
    r"""``asked``, the option's, or else what ``WANDB_MODE`` says in the option's words; None if neither does.

    Raises:
        Refused: If ``WANDB_MODE`` is no mode, whatever is asked for: W&B looks at it as well.
    """
    given = os.environ.get("WANDB_MODE")
    if given and given not in MODES:
        raise Refused(f"WANDB_MODE={given}: one of online, offline, disabled is expected")
    return asked or (MODES[given] if given else None)


def start_wandb(folder: Path, config: dict) -> tuple[WandbRun | None, str]:
    r"""A W&B run, or None, and the mode that was chosen.

    Arguments:
        folder: The run's own.
        config: The plain config, with ``choices``.
    """
    asked = wandb_mode(config["wandb"]["mode"])
    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)  # W&B takes an empty one for a mistake
    if asked == "disabled":
        return None, "disabled"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which complains about a server that is not there
    mode = asked or "online"
    if mode == "online" and not reachable():
        mode = "offline"
        if asked:
            print("W&B: no credentials, or the server does not answer: this run is kept offline", file=sys.stderr)
    for attempt in dict.fromkeys([mode, "offline"]):
        try:
            return WandbRun(folder, config, attempt, folder), attempt
        except Exception as error:
            print(f"W&B could not start {attempt} ({type(error).__name__}: {error})", file=sys.stderr)
    return None, "disabled"


def reachable() -> bool:
    r"""Whether the W&B server answers within 5 seconds and credentials for it exist."""
    answered = threading.Event()

    def probe(address):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        answered.set()

    import wandb

    try:
        settings = wandb.setup(wandb.Settings(silent=True)).settings  # what environment and files say
        settings.mode = "online"  # whatever WANDB_MODE says, which wandb.mode goes before
        threading.Thread(target=probe, args=[settings.base_url], daemon=True).start()
        return answered.wait(5) and bool(wandb.login(prompt=False))
    except Exception:
        return False


def upload_command(folder: Path) -> str:
    r"""What to type, where this program was started, to send W&B what it does not have of a run."""
    return report_command(folder, "--upload")


def report_command(*arguments: Path | str) -> str:
    r"""What to type, where this program was started, for ``report.py`` with these arguments."""
    program = Path(sys.argv[0])
    words = [sys.orig_argv[0], program.with_name("report.py")] if program.name == "run.py" else ["hardmax", "report"]
    return shlex.join(map(str, [*words, *arguments]))
