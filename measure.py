"""Estimators side by side, without training: bias, variance and cost of their gradients, as table, CSV and pictures.

    python measure.py output/dvae/arsm/0-1a2b3c4d measure.draws=1000
    python measure.py task=dvae estimator=arsm 'measure.rivals=[reinmax,{reinforce:{samples:4,baseline:leave_one_out}}]'

The first measures at the parameters of a finished run, with ``measure``, ``device`` and ``threads`` as given here;
the second at those that a run of this config starts from. Without measure.rivals nine others are measured as well.
"""

from hardmax.reporting.comparison import main

if __name__ == "__main__":
    main()
