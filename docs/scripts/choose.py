"""What the page on the choice of an estimator is made of: tables from the classes, answers of README and leaderboard.

``python docs/scripts/choose.py docs/choose.md`` writes them into the page, each between two comments.
"""

import math
import re
import sys
from pathlib import Path

import boards
import classes
import repository

from hardmax import markdown
from hardmax.estimators.__main__ import typeset
from hardmax.paths import ROOT

SIZES = ((1, 10), (1, 50), (20, 10), (20, 50))  # variables and categories
KINDS = {  # whether an estimator belongs to a table
    "black boxes": lambda e: e.target == "expectation" and e.unbiased and not e.differentiates_objective,
    "biased": lambda e: e.target != "bound" and not e.unbiased,
    "control variates": lambda e: e.target == "expectation" and e.unbiased and e.differentiates_objective,
    "bounds": lambda e: e.target == "bound",
}


NAME = re.compile(r"\[`(\w+)`\]\(estimators\.md\)")


def filled(text):
    """The page with all that is made anew."""
    made = {f"table of {kind}": lambda kind=kind: table(kind) for kind in KINDS}
    made |= {"answer of the README": answer, "what the leaderboard says": leaderboard}
    for what, make in made.items():
        between = re.compile(f"(<!-- {what} -->\n).*(<!-- end of {what} -->)", re.DOTALL)
        text = between.sub(lambda found, make=make: f"{found[1]}\n{make().strip()}\n\n{found[2]}", text)
    return text


def for_the_site(text):
    """The page with each estimator's name linked to a page of its own, in place of the table of all."""
    return NAME.sub(r"[`\1`](estimators/\1.md)", text)


def answer():
    """The README's, with links that hold in this folder."""
    readme = repository.for_the_site((ROOT / "README.md").read_text(encoding="utf-8"))
    return readme.split("<!-- answer -->\n")[1].split("<!-- end of answer -->")[0]


def leaderboard():
    """What the leaderboard says before its tables, where there is an archive of it."""
    if not list((ROOT / "docs/leaderboard").glob("*.jsonl.xz")):
        return ""
    page = (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")
    said = page.split("\n## ")[0].split("\n", 1)[1]
    return (
        f"## What the leaderboard says\n{said}\n[All of it](leaderboard.md).\n\n### Where each is the best\n\n"
        "With what is not significantly worse, the best first; settings in the leaderboard's tables.\n\n"
        f"{boards.regions()}"
    )


def table(kind):
    """Estimators of a kind, by their work or, if biased, by their bias."""
    rows = []
    for name, made, config in classes.choices("estimator"):
        estimator = made(**config)
        if KINDS[kind](estimator):
            known = certificate(name)
            counts = [classes.evaluations_of(estimator, K, C) for K, C in SIZES]
            order = known["gradient's bias" if kind == "biased" else "work / leave-one-out"]
            cells = [f"[`{name}`](estimators.md)", typeset(estimator.evaluations)]
            cells += map(brief, counts) if kind == "black boxes" else []
            cells += [known["gradient's bias"]] if kind in ("biased", "bounds") else []
            cells += [known["/ leave-one-out"]] if kind != "bounds" else []
            cells += [known["work / leave-one-out"]] if kind in ("black boxes", "control variates") else []
            rows.append((leading_number(order), cells))
    if kind == "black boxes":  # the measure of the last columns
        loo = "[`reinforce`](estimators.md) `samples=2 baseline=leave_one_out`"
        rows.append((1.0, [loo, "S", *["2"] * len(SIZES), "1", "1"]))
    titles = ["estimator", "evaluations"]
    titles += [f"{K} × {C}" for K, C in SIZES] if kind == "black boxes" else []
    titles += ["gradient's bias"] if kind in ("biased", "bounds") else []
    titles += ["variance"] if kind != "bounds" else []
    titles += ["work"] if kind in ("black boxes", "control variates") else []
    return markdown.table(titles, [cells for _, cells in sorted(rows)])


def certificate(name):
    """An estimator's certificate, by column; empty where there is none."""
    rows = classes.certificate_cells(name)
    return (
        dict(zip(*rows, strict=True))
        if rows
        else dict.fromkeys(("gradient's bias", "/ leave-one-out", "work / leave-one-out"), "")
    )


def leading_number(cell):
    found = re.match(r"[\d.]+", cell)
    return float(found[0]) if found else float("inf")


def brief(count):
    return f"{count:,}" if count < 1e6 else f"10^{round(math.log10(count))}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
