r"""Weights & Biases: a run there, begun and ended so that a server which is away costs little time and no figure."""

import os
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 10  # seconds that W&B may keep a run waiting at either end


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
