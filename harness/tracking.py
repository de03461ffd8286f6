r"""Where a run's figures go: files in a folder of its own, flushed row by row, and Weights & Biases."""

import contextlib
import csv
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from filelock import FileLock, Timeout
from matplotlib.image import imsave

from hardmax.paths import HOME
from hardmax.tasks.base import Figure

from .shared import FIGURES, FINISHED, NOT_RESULTS, NotWritten, Refused, write_whole, writing

PATIENCE = 10  # seconds that W&B may keep a run waiting at either end


def runs_of(output: str, task: str, estimator: str, seed: int, key: str) -> list[Path]:
    r"""Folders of the runs made from one config so far, oldest first."""
    parent = Path(output) / task / estimator
    again = [p for p in parent.glob(f"{seed}-{key}-*") if p.name.rsplit("-", 1)[1].isdigit()]
    return [parent / f"{seed}-{key}"] * (parent / f"{seed}-{key}").is_dir() + sorted(
        again, key=lambda p: int(p.name.rsplit("-", 1)[1])
    )


def new_folder(output: str, task: str, estimator: str, seed: int, key: str) -> Path:
    r"""Makes ``output/task/estimator/seed-key``, or the same with -2, -3, ... if that is taken.

    Raises:
        Refused: If it cannot be made, or not be written to.
    """
    base, count = Path(output) / task / estimator / f"{seed}-{key}", 1
    while True:
        folder = base if count == 1 else base.with_name(f"{base.name}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise Refused(f"output={output}: {folder} is a file, where a folder is needed") from None
            count += 1
        except OSError as error:
            raise Refused(f"output={output}: cannot make {folder}: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path, patience: float = 10) -> Iterator[bool]:
    r"""Within it, no other process works on the run; False if one still does after ``patience`` seconds.

    The lock is the operating system's: a process that dies does not keep it.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=patience)
    except Timeout:  # an OSError too, but not one of writing
        yield False
        return
    except OSError as error:
        raise NotWritten(f"{folder / 'lock'}: {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()


def changed_since(folder: Path, code: dict[str, str]) -> str:
    r"""Files of the code that makes results that are not what they were when the run of ``folder`` began, in words.

    Empty if there are none.

    Raises:
        Refused: If it cannot be told.
    """
    path = folder / "environment.json"
    try:
        before = dict(json.loads(path.read_text())["code"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(f"{path} cannot be read, and nothing else tells by which code: fresh=true begins anew") from None
    changed = sorted(name for name in before.keys() | code.keys() if before.get(name) != code.get(name))
    return ", ".join(changed[:3]) + f" and {len(changed) - 3} more" * (len(changed) > 3)


def environment(device: torch.device) -> dict:
    r"""Versions, commit and hardware behind a run."""

    def git(*arguments):
        try:
            done = subprocess.run(["git", *arguments], cwd=HOME, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    packages = ("torch", "numpy", "hydra-core", "omegaconf", "wandb")
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed_files": (git("status", "--porcelain") or "").splitlines(),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
    }


def processor() -> str:
    r"""The processor's name, and how many of its cores there are."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{names[0]}, {os.cpu_count()} cores"
    return f"{platform.processor() or 'cpu'}, {os.cpu_count()} cores"


def fill_in_names(config: dict, labels: dict, overrides: list[str], about: dict | None) -> None:
    r"""Fills in what W&B shows and was left open, and adds task and estimator to the tags.

    A run is named after task, estimator, seed and the options in which the jobs of its sweep differ. A group are runs
    that differ in their seed alone, or the trials of a search.

    Arguments:
        config: The resolved config, plain; it is changed.
        labels: ``task``, ``estimator`` and ``seed``.
        overrides: Of the command line, of this job.
        about: What is known of the job's sweep, if it is of one.
    """
    pairs = [override.lstrip("+").split("=", 1) for override in overrides]
    named = {*about["varied"]} - {*labels, *NOT_RESULTS} if about else set()
    settings = "".join(f" {key.rpartition('.')[2]}={shortened(value)}" for key, value in pairs if key in named)
    of_all = f"{labels['task']}-{labels['estimator']}"
    of_group = of_all if about and about["searching"] else of_all + settings
    config["name"] = config["name"] or f"{of_all}-{labels['seed']}{settings}"[:128]
    config["wandb"]["group"] = config["wandb"]["group"] or of_group[:128]
    config["wandb"]["tags"] = list(dict.fromkeys([*config["wandb"]["tags"], labels["task"], labels["estimator"]]))


def shortened(value: str) -> str:
    r"""A number with four digits, and other text as it is."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def write_json(path: Path, content: dict) -> None:
    r"""Writes a file that is either whole and on disk or not there."""
    write_whole(path, f"{json.dumps(content, indent=2)}\n".encode())


class Tracker:
    r"""Writes rows to ``metrics.jsonl`` and ``timings.jsonl`` in the run's folder, and to W&B.

    ``metrics.jsonl`` holds nothing that depends on the clock: two runs of one config on one machine write the
    same bytes. W&B may fail at any moment without harm to the run: its ``mode`` is ``online``, ``offline``,
    ``disabled``, or ``incomplete`` if its server has not taken everything.

    Arguments:
        folder: The run's own, already made.
        config: The resolved config, plain.
        labels: ``task``, ``estimator`` and ``seed``.
        device: Where the run computes.
        code: Hashes of the code that makes the results, by file.
        sizes: What :meth:`sizes` gave when the checkpoint was written that the run goes on from: rows after it are
            made again. None for a new run.

    Its methods, and making one, raise:
        NotWritten: If a file cannot be written.
    """

    FILES = ("metrics.jsonl", "timings.jsonl")

    def __init__(
        self,
        folder: Path,
        config: dict,
        labels: dict,
        device: torch.device,
        code: dict[str, str],
        sizes: dict[str, int] | None = None,
    ):
        self.folder = folder
        with writing(folder):
            kept = yaml.safe_dump({"choices": labels, **config}, sort_keys=False)
            write_whole(folder / "config.yaml", kept.encode())
            if sizes is None:
                write_json(folder / "environment.json", {**environment(device), "code": code})
            for name in self.FILES:
                with (folder / name).open("ab") as file:
                    file.truncate((sizes or {}).get(name, 0))
            self.metrics, self.timings = ((folder / name).open("a") for name in self.FILES)
        self.wandb, self.mode = start_wandb(folder, config, labels)

    def describe(self, figures: dict[str, Figure]) -> None:
        r"""Keeps what the task says of its figures."""
        with writing(self.folder):
            write_json(self.folder / FIGURES, {name: asdict(figure) for name, figure in figures.items()})

    def sizes(self) -> dict[str, int]:
        r"""Bytes of the files of rows so far, which are on disk when this returns."""
        with writing(self.folder):
            for file in (self.metrics, self.timings):
                os.fsync(file.fileno())
            return {name: (self.folder / name).stat().st_size for name in self.FILES}

    def log(self, step: int, row: dict, timings: dict[str, float]) -> None:
        r"""One row after ``step`` optimiser steps, and seconds: of training so far, and of what was measured."""
        timing = {name: float(f"{seconds:.4g}") for name, seconds in timings.items()}
        with writing(self.folder):
            for file, content in ((self.metrics, row), (self.timings, timing)):
                file.write(json.dumps({"step": step, **content}, allow_nan=False) + "\n")
                file.flush()
        self.to_wandb(lambda run: run.log({"step": step, **row, **timing}))

    def keep(self, examples: dict[str, list[dict[str, str]] | torch.Tensor]) -> None:
        r"""Keeps what people look at: tables as ``NAME.csv`` in the folder, pictures as ``NAME.png``, both in W&B."""
        for name, rows in examples.items():
            if isinstance(rows, torch.Tensor):
                self.keep_picture(name, rows)
                continue
            with writing(self.folder), (self.folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            self.to_wandb(lambda run, name=name, rows=rows: run.log({name: as_table(rows)}))

    def keep_picture(self, name: str, grey: torch.Tensor) -> None:
        r"""Keeps grey levels in [0, 1] ``[height, width]``, each as three by three pixels."""
        grey = grey.cpu().float().repeat_interleave(3, 0).repeat_interleave(3, 1).numpy()
        path = self.folder / f"{name}.png"
        with writing(self.folder):
            imsave(path, grey, cmap="gray", vmin=0, vmax=1)
        self.to_wandb(lambda run: run.log({name: as_picture(path)}))

    def finish(self, summary: dict) -> None:
        r"""Marks the run as finished, with its final figures and :meth:`sizes`."""
        with writing(self.folder):
            write_json(self.folder / FINISHED, {**summary, "sizes": self.sizes()})
        self.to_wandb(lambda run: run.summary.update(summary))

    def close(self, exit_code: int) -> None:
        r"""Closes the files, and W&B with what has reached it."""
        for file in (self.metrics, self.timings):
            with contextlib.suppress(OSError):  # of rows that could not be written, which was said
                file.close()
        self.to_wandb(lambda run: finish_wandb(run, exit_code))

    def to_wandb(self, action) -> None:
        if self.wandb is None:
            return
        try:
            action(self.wandb)
        except Exception as error:  # whatever it is, the local files are complete
            text = " ".join(str(error).split())
            print(f"W&B stopped ({type(error).__name__}: {text}); {self.folder} holds all rows", file=sys.stderr)
            self.wandb = None
            if self.mode == "online":
                self.mode = "incomplete"


def as_table(rows: list[dict[str, str]]):
    r"""A W&B table of the rows."""
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def as_picture(path: Path):
    r"""A W&B image of a file."""
    import wandb

    return wandb.Image(str(path))


def start_wandb(folder: Path, config: dict, labels: dict):
    r"""A W&B run, or None, and the mode that was chosen."""
    asked = config["wandb"]["mode"] or os.environ.get("WANDB_MODE")
    if asked == "disabled":
        return None, "disabled"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which complains about a server that is not there
    import wandb

    mode = asked or "online"
    if mode == "online" and not reachable(wandb):
        mode = "offline"
        if asked:
            print("W&B: no credentials, or the server does not answer: this run is kept offline", file=sys.stderr)
    for attempt in dict.fromkeys([mode, "offline"]):
        try:
            run = wandb.init(
                project=config["wandb"]["project"],
                entity=config["wandb"]["entity"],
                group=config["wandb"]["group"],
                tags=config["wandb"]["tags"],
                name=config["name"],
                notes=config["notes"],
                config={"choices": labels, **config},
                id=f"{labels['task']}-{labels['estimator']}-{folder.name}",
                resume="allow" if attempt == "online" else None,
                dir=folder.resolve(),  # its service keeps the folder that it was started in
                mode=attempt,
                settings=wandb.Settings(
                    init_timeout=PATIENCE,
                    finish_timeout=PATIENCE,
                    finish_timeout_raises=True,
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_stats=True,
                ),
            )
            run.define_metric("*", step_metric="step")
            return run, attempt
        except Exception as error:
            print(f"W&B could not start {attempt} ({type(error).__name__}: {error})", file=sys.stderr)
    return None, "disabled"


def finish_wandb(run, exit_code: int) -> None:
    r"""Ends a W&B run.

    Raises:
        ConnectionError, TimeoutError: If its server refused rows, or has not taken all of them within ``PATIENCE``.
    """
    log = Path(run.settings.log_internal)
    run.finish(exit_code=exit_code)
    if log.is_file() and "filestream: fatal error" in log.read_text(errors="replace"):  # it is said nowhere else
        raise ConnectionError("the server refused rows")


def reachable(wandb) -> bool:
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

    try:
        settings = wandb.setup(wandb.Settings(silent=True)).settings  # what environment and files say
        threading.Thread(target=probe, args=[settings.base_url], daemon=True).start()
        return answered.wait(5) and bool(wandb.login(prompt=False))
    except Exception:
        return False
