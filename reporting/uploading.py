r"""Runs sent to Weights & Biases from their folders, whatever became of them: ``report.py FOLDER --upload``."""

import sys
import tempfile
from pathlib import Path

from hardmax.harness.folders import locked
from hardmax.harness.online import WandbRun, reachable
from hardmax.harness.shared import FINISHED, Refused

from .runs import json_of, printable, saved_config, walk

PATIENCE = 300  # seconds that W&B may take to begin or to end a run


def upload(folders: list[Path]) -> int:
    r"""Sends what W&B does not have of all runs below the folders, and tells so line by line; the exit code.

    Raises:
        Refused: If there is no run, or W&B cannot be reached.
    """
    places = {place.resolve(): place for folder in folders for place, names in walk(folder) if "metrics.jsonl" in names}
    if not places:
        raise Refused(f"no runs below {', '.join(map(str, folders))}")
    if not reachable():
        raise Refused("W&B: no credentials (wandb login), or the server does not answer")
    failed = 0
    for place in sorted(places.values()):
        try:
            print(printable(upload_run(place)), flush=True)
        except Exception as error:  # whatever it is, the others are uploaded
            failed += 1
            text = " ".join(str(error).split())
            print(printable(f"not uploaded: {place} ({type(error).__name__}: {text[:300]})"), file=sys.stderr)
    return 1 if failed else 0


def upload_run(folder: Path) -> str:
    r"""Sends what W&B does not have of one run; what that was, in words.

    Raises whatever is wrong with the folder, or with W&B.
    """
    config = saved_config(folder)
    with locked(folder, patience=0) as free, tempfile.TemporaryDirectory() as place:
        if not free:
            return f"{folder}: left out, a process works on it"
        run, exit_code = WandbRun(folder, config, "online", Path(place), PATIENCE), 1
        try:
            run.send_rows(folder)
            rows, missing = run.entries, max(0, run.entries - run.there)
            if (folder / FINISHED).is_file():
                run.send_examples(folder)
                run.run.summary.update({k: v for k, v in json_of(folder / FINISHED).items() if k != "sizes"})
                exit_code = 0
        finally:
            run.finish(exit_code)
    return f"{folder}: {missing} rows sent, {rows - missing} were there: {run.run.url}"
