"""Estimators side by side, without training: bias, variance and cost of their gradients, as table, CSV and pictures.

    python measure.py output/dvae/arsm/0-1a2b3c4d measure.draws=1000
    python measure.py task=dvae estimator=arsm 'measure.rivals=[reinmax,{reinforce:{samples:4,baseline:leave_one_out}}]'

The first measures at the parameters of a finished run, with ``measure``, ``device`` and ``threads`` as given here;
the second at those that a run of this config starts from. Without measure.rivals nine others are measured as well.
"""

import sys

from hardmax.harness.refusals import fail
from hardmax.harness.shared import NotWritten, writing
from hardmax.harness.side_by_side import measure
from hardmax.reporting.side_by_side import show


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    rows, task, to = measure(sys.argv[1:])
    try:
        with writing(to):
            show(rows, task, to)
    except NotWritten as error:
        fail(error)


if __name__ == "__main__":
    main()
