"""Estimators side by side, without training: bias, variance and cost of their gradients, as table, CSV and pictures.

    python measure.py output/dvae/arsm/0-1a2b3c4d measure.draws=1000
    python measure.py wandb:ENTITY/PROJECT/RUN measure.draws=1000
    python measure.py task=dvae estimator=arsm 'measure.rivals=[reinmax,{reinforce:{samples:4,baseline:leave_one_out}}]'
    python measure.py task=toy estimator=mine --config-dir conf 'measure.rivals=[arsm]'

The first measures at the parameters of a finished run, with ``measure``, ``device`` and ``threads`` as given here; the
second at those of one that W&B has, which ran with wandb.artifact=true; the others at those that a run of this config
starts from. Without measure.rivals ten others are measured as well.
--config-dir, which a run of an estimator or a task of one's own needs as well, --config-name, --cfg and so on are those
of run.py.
"""

import sys

from hardmax.harness.output import begin_command
from hardmax.harness.refusals import exit_with
from hardmax.harness.shared import NotWritten, writing
from hardmax.harness.side_by_side import measure_command
from hardmax.reporting.side_by_side import show_side_by_side


def main() -> None:
    r"""Entry point of ``measure.py`` and ``hardmax measure``."""
    begin_command()
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    if (found := measure_command()) is None:
        return
    *_, to = found
    try:
        with writing(to):
            show_side_by_side(*found)
    except NotWritten as error:
        exit_with(error)
