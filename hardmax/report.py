"""Runs side by side: a page for the browser that needs no network, tables and pictures. ``python report.py FOLDER``."""

import argparse
import sys
from pathlib import Path

from hardmax.harness.contents import printable
from hardmax.harness.output import begin_command
from hardmax.harness.shared import Refused
from hardmax.reporting.archives import is_archive, shown
from hardmax.reporting.validation import budget_of
from hardmax.reporting.writing import write


def main() -> None:
    r"""Entry point of ``report.py`` and ``hardmax report``."""
    begin_command()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="below it runs, and archives of runs, are looked for"
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where it goes (default: report in the first FOLDER)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY=VALUE", help="runs with these settings; of one key, any value"
    )
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="KEY", help="average what shares these settings (default: all but seed)"
    )
    parser.add_argument(
        "--tune",
        nargs="*",
        metavar="KEY",
        help="compare estimators at their best settings of these keys (default: all that was swept but the seed)",
    )
    parser.add_argument(
        "--at", metavar="AXIS=N", help="as --tune, at a budget: steps=N, evaluations=N or seconds=N of each run"
    )
    parser.add_argument(
        "--published",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="published values of your own",
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="write this page about experiments instead")
    parser.add_argument("--leaderboard", type=Path, metavar="FILE", help="write this page about estimators instead")
    parser.add_argument(
        "--upload", action="store_true", help="send W&B what it does not have of the runs instead, from their files"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="make a W&B report of the runs that are there instead, or its file"
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FOLDER", help="add the finished runs to this folder's archives instead"
    )
    options = parser.parse_args()
    try:
        if absent := [str(p) for p in options.folders if not p.is_dir() and not (is_archive(p) and p.is_file())]:
            raise Refused(f"no such folder: {', '.join(absent)}")
        if (options.results or options.leaderboard) and (options.only or options.by or options.to):
            raise Refused("--only, --by and --to are for reports, not for --results or --leaderboard")
        if options.leaderboard and (options.results or options.published):
            raise Refused("--results and --published do not go with --leaderboard")
        if (options.tune is not None or options.at) and (options.by or options.results or options.leaderboard):
            raise Refused("--tune and --at do not go with --by, --results or --leaderboard")
        at = budget_of(options.at) if options.at else None
        tune = [] if options.at and options.tune is None else options.tune
        pages = [
            tune is not None,
            options.results,
            options.leaderboard,
            options.published,
            options.only,
            options.by,
            options.to,
        ]
        for alone in ("upload", "archive"):
            if getattr(options, alone) and (any(pages) or (options.upload and options.archive)):
                raise Refused(f"--{alone} goes with no other option")
        if options.wandb and (any(pages[:4]) or options.at or options.upload or options.archive):
            raise Refused("--wandb goes with --only, --by and --to alone")
        first = options.folders[0]
        to = options.to or (first if first.is_dir() else first.parent) / "report"
        if options.upload:
            if archives := [str(path) for path in options.folders if is_archive(path)]:
                raise Refused(f"--upload takes folders of runs, got the archive {archives[0]}")
            from hardmax.reporting.uploading import upload

            sys.exit(upload(options.folders))
        if options.archive:
            from hardmax.reporting.archiving import add_runs
            from hardmax.reporting.runs import find_runs

            found = find_runs(options.folders)
            written, left_out = add_runs(found.runs, options.archive)
            text = "" if written else "nothing new to archive"
            notes = found.notes + left_out
        elif options.results:
            from hardmax.reporting.reproduction import write_results

            text, written = "", write_results(options.folders, options.results, options.published)
            notes = []
        elif options.leaderboard:
            from hardmax.reporting.leaderboard import write_leaderboard

            text, (written, notes) = "", write_leaderboard(options.folders, options.leaderboard)
        elif options.wandb:
            from hardmax.reporting.online_report import write_online_report

            text, written, notes = write_online_report(options.folders, to, options.only, options.by)
        else:
            text, written, notes = write(options.folders, to, options.only, options.by, options.published, tune, at)
    except Refused as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    for note in notes:
        print(printable(shown(note)), file=sys.stderr)
    print(printable("\n".join([text, "", *map(str, written)]).lstrip("\n")))
