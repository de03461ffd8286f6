r"""Runs sent to Weights & Biases from their folders, whatever became of them: ``report.py FOLDER --upload``."""

import sys
import tempfile
from pathlib import Path

from hardmax.harness.contents import json_of, printable, saved_config
from hardmax.harness.folders import RunIsLocked, claimed
from hardmax.harness.online import WandbRun, reachable
from hardmax.harness.shared import FINISHED, Refused

from .runs import walk

SECONDS_TO_UPLOAD = 300  # seconds that W&B may take to begin or to end a run


def upload(folders: list[Path]) -> int:
    r"""Sends what W&B does not have of all runs below the folders, and tells so line by line; the exit code.

    Raises:
        Refused: If there is no run, or W&B cannot be reached.
    """
    notes: list[str] = []
    found = [place for folder in folders for place, names in walk(folder, notes) if "metrics.jsonl" in names]
    places = {place.resolve(): place for place in found}
    for note in notes:
        print(printable(note), file=sys.stderr)
    if not places:
        raise Refused(f"no runs below {', '.join(map(str, folders))}")
    if not reachable():
        raise Refused("W&B: no credentials (wandb login), or the server does not answer")
    failed = 0
    for place in sorted(places.values()):
        try:
            print(printable(upload_run(place)), flush=True)
        except RunIsLocked:
            print(printable(f"{place}: left out, a process works on it"), flush=True)
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
    with claimed(folder, patience=0), tempfile.TemporaryDirectory() as place:
        run, exit_code = WandbRun(folder, config, "online", Path(place), SECONDS_TO_UPLOAD), 1
        try:
            run.send_rows(folder)
            rows, missing = run.entries, max(0, run.entries - run.there)
            if (folder / FINISHED).is_file():
                run.send_examples(folder)
                run.summarise(summary := json_of(folder / FINISHED))
                run.send_model(folder, summary)
                exit_code = 0
        finally:
            run.finish(exit_code)
    return f"{folder}: {missing} rows sent, {rows - missing} were there: {run.run.url}"
