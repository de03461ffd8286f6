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
    "biased black boxes": lambda e: e.target != "bound" and not e.unbiased and not e.differentiates_objective,
    "biased": lambda e: e.target != "bound" and not e.unbiased and e.differentiates_objective,
    "control variates": lambda e: e.target == "expectation" and e.unbiased and e.differentiates_objective,
    "bounds": lambda e: e.target == "bound",
}
LEADERBOARD = """\
## What the leaderboard says

On each of its three problems every estimator that has been run was tuned, with as many settings as the others, and the
setting that was best on validation then ran with five other seeds. At equal steps the test figure at the last of 10,000
steps counts; at equal evaluations or seconds the best validation figure up to what the cheapest run spends in all. The
[leaderboard](leaderboard.md) has the figures and settings, and names the many estimators that have not been run.

`dvae` is an autoencoder of digits with one layer of choices; `structured` completes the lower half of a digit from its
upper half, through two layers of 20 variables of 10 categories. The best stands first, beside it what is not
significantly worse.
"""
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
    """Where each is the best, where there is an archive of the leaderboard."""
    if not list((ROOT / "docs/leaderboard").glob("*.jsonl.xz")):
        return ""
    return f"{LEADERBOARD}\n{boards.regions()}"


def table(kind):
    """Estimators of a kind, by their work or, if biased, by their bias."""
    rows = []
    for name, made, config in classes.choices("estimator"):
        estimator = made(**config)
        if KINDS[kind](estimator):
            known = certificate(name)
            counts = [classes.evaluations_of(estimator, K, C) for K, C in SIZES]
            order = known["gradient's bias" if kind.startswith("biased") else "work / leave-one-out"]
            cells = [f"[`{name}`](estimators.md)", typeset(estimator.evaluations)]
            cells += map(brief, counts) if kind == "black boxes" else []
            cells += [known["gradient's bias"]] if kind in ("biased", "biased black boxes", "bounds") else []
            cells += [known["/ leave-one-out"]] if kind != "bounds" else []
            cells += [known["work / leave-one-out"]] if kind in ("black boxes", "control variates") else []
            rows.append((leading_number(order), cells))
    if kind == "black boxes":  # the measure of the last columns
        loo = "[`reinforce`](estimators.md) `samples=2 baseline=leave_one_out`"
        rows.append((1.0, [loo, "S", *["2"] * len(SIZES), "1", "1"]))
    titles = ["estimator", "evaluations"]
    titles += [f"{K} × {C}" for K, C in SIZES] if kind == "black boxes" else []
    titles += ["gradient's bias"] if kind in ("biased", "biased black boxes", "bounds") else []
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
