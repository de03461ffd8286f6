"""A sweep read with pandas: which estimator, at which learning rate?"""

import subprocess
import sys
import tempfile
from pathlib import Path

import hardmax

with tempfile.TemporaryDirectory() as folder:
    output = Path(folder) / "output"
    sweep = [
        *(sys.executable, "-m", "hardmax", "run", "-m"),
        "task=toy",
        "task.objective=quadratic",
        "task.variables=3",
    ]
    sweep += ["estimator=reinforce,reinmax", "optimizer.lr=0.01,0.1", "seed=1,2", "steps=100", "measure.every=50"]
    subprocess.run([*sweep, "wandb.mode=disabled", f"output={output}"], check=True, stdout=subprocess.DEVNULL)

    runs = hardmax.runs(output)  # a row for each run: settings and final figures
    print(runs.groupby(["estimator", "optimizer.lr"])["test/gap"].agg(["mean", "sem", "size"]).sort_values("mean"))

    rows = hardmax.rows(output)  # a row for each row that was logged
    variance = rows.pivot_table("gradient/logits/variance", index="step", columns="estimator")
    print("\nVariance of one gradient draw, to the logits:\n", variance.round(4))
    assert len(runs) == 8
