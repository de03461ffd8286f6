"""The page of certificates: ``hardmax certify`` of every estimator of the configs, and of other libraries'.

Run it as ``python -m benchmarks.certificates docs/certificates.md``; it takes about 10 minutes on two cores. The other
libraries come with ``pip install -c constraints.txt -e '.[libraries]'``: without them there is no page.
"""

import contextlib
import io
import json
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from hardmax import certify as command
from hardmax import markdown
from hardmax.certification.text import percentage
from hardmax.paths import CONFIGS

OWN = [f"estimator={p.stem}" for p in sorted((CONFIGS / "estimator").glob("*.yaml"))]
OTHERS = {  # what it is: how it is certified
    "torch `gumbel_softmax`": ["--sampler", "torch.nn.functional:gumbel_softmax"],
    "torch `gumbel_softmax`, hard": ["--sampler", "torch.nn.functional:gumbel_softmax", "hard=true"],
    "pyro `RelaxedOneHotCategorical`": ["--sampler", "benchmarks.others:pyro_relaxed"],
    "pyro `RelaxedOneHotCategoricalStraightThrough`": ["--sampler", "benchmarks.others:pyro_straight_through"],
    "pyro `Trace_ELBO`": ["benchmarks.others.PyroReinforce"],
    "pydrobert `reinforce`": ["benchmarks.others.PydrobertReinforce"],
    "pydrobert `relax`, `REBARControlVariate`": ["benchmarks.others.PydrobertRebar"],
    "pydrobert `relax`, a fixed network": ["benchmarks.others.PydrobertRelax"],
    "reinmax `reinmax`": ["--sampler", "benchmarks.others:reinmax"],
}
RATIOS = ("reinforce", "leave_one_out", "work_reinforce", "work_leave_one_out")
LIBRARIES = {"pyro": "pyro-ppl", "pydrobert": "pydrobert-pytorch", "reinmax": "reinmax"}
COLUMNS = (
    "what", "claims", "gradient's bias", "variance / REINFORCE", "/ leave-one-out", "work / REINFORCE",
    "work / leave-one-out", "evaluations", "holds",
)  # fmt: skip
HEAD = """\
# Certificates

A line for each estimator of the configs, with its options as they stand there, and for other libraries', as `hardmax
certify` prints them for anybody's: `hardmax certify estimator=arsm`, `hardmax certify mine.Mine`, `hardmax certify
--sampler torch.nn.functional:gumbel_softmax`. There are three problems: one variable of 5 categories, two of 3, and
three of 2, with a cost that is not multilinear. What learns has not learned anything yet.

* *gradient's bias*: the distance of the expected gradient from the exact one over the norm of the exact one (a
  multi-sample bound's own), on the problem where it is largest, and its standard error; exact without one.
* *variance*: the trace of the covariance of one gradient draw, over that of REINFORCE with one draw and no baseline,
  and over that of two draws with the other's cost as the baseline. *work* is variance times evaluations of the
  objective, likewise. Means over the three problems; none for a bound, whose gradient is another one. A small
  variance is worth little beside a large bias.
* *evaluations*: rows on which the objective is evaluated for one gradient draw, as counted on each of the three.
* *holds*: whether all that is claimed does, and what every estimator must do: expected value and gradients, also of the
  objective's parameters and with log q in the objective; leading dimensions; independent draws; nesting; state; extreme
  logits; precisions; torch.compile. A sampler claims nothing, but has its law, finite values and a gradient to see to.

Written by `make certificates`, {versions}.

"""


def certificate(arguments: list[str]) -> dict:
    r"""What the command writes as JSON."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "certificate.json"
        if command.main([*arguments, "--json", str(file)]) == command.WRONG:
            raise SystemExit(f"{' '.join(arguments)} cannot be certified")
        return json.loads(file.read_text())


def row(name: str, found: dict) -> list[str]:
    r"""The cells of a certificate."""
    measured = found["measurements"]
    worst = max(measured, key=lambda m: m["bias"])
    ratios = [(found["ratios"] or {}).get(key) for key in RATIOS]
    failed = [o for o in found["outcomes"] if not o["holds"]]
    return [
        name,
        claims(found),
        percentage(worst["bias"], worst["bias_error"]),
        *("" if r is None else f"{r:.2g}" for r in ratios),
        ", ".join(str(m["evaluations"]) for m in measured),
        "; ".join(f"fails: {markdown.plain_text(o['claim'] + ': ' + o['message'])}" for o in failed) or "yes",
    ]


def claims(found: dict) -> str:
    r"""What is claimed of value and gradient."""
    if found["claims"] is None:
        return {"expectation": "nothing: one-hot", "mode": "nothing: the mode", "relaxed": "nothing: relaxed"}[
            found["target"]
        ]
    return f"{found['target']}, {'unbiased' if found['claims']['unbiased'] else 'biased'}"


def main() -> None:
    page = Path(sys.argv[1])
    missing = [extra for library, extra in LIBRARIES.items() if find_spec(library) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not installed: pip install -c constraints.txt -e '.[libraries]'")
    rows = []
    all_of_them = {f"`{o.partition('=')[2]}`": [o] for o in OWN} | OTHERS
    for name, arguments in all_of_them.items():
        rows.append(row(name, certificate(arguments)))
        print(*rows[-1], sep=" | ", flush=True)
    page.write_text(written(rows), encoding="utf-8")


def written(rows: list[list[str]]) -> str:
    r"""The page."""
    versions = [f"torch {torch.__version__.partition('+')[0]}", *(f"{x} {version(x)}" for x in LIBRARIES.values())]
    return HEAD.format(versions=", ".join(versions)) + markdown.table(COLUMNS, rows)


if __name__ == "__main__":
    main()
