"""What is left behind of the key to a user's account at Weights & Biases: nothing."""

from helpers.commands import SHORT, folders
from helpers.uploads import KEY, OTHER, files_with_a_key, run
from helpers.wandb_server import Server


def test_the_key_is_nowhere(tmp_path, surroundings):
    """After runs offline, online and failed, a sweep, a measurement and a report; in files, output and errors."""
    work = tmp_path / "work"
    work.mkdir()
    sweep = ["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "wandb.mode=offline"]
    said = []
    with Server() as server:
        environment = surroundings(server.address)

        def script(name, *arguments, code=0):
            done, _ = run(work, environment, *arguments, script=name)
            assert done.returncode == code, done.stderr
            said.append(done.stdout + done.stderr)

        script("run.py", *SHORT)
        assert "W&B          online" in said[-1]
        script("run.py", "-m", *SHORT, *sweep)
        script("run.py", *SHORT, "seed=3", "optimizer.lr=1e30", "wandb.mode=online", code=1)
        (online,) = [f for f in folders(work) if f.name.startswith("0-")]
        script("measure.py", online, "measure.draws=2", "measure.rivals=[]")
        script("report.py", "output")
        script("report.py", "output", "--results", "RESULTS.md")
        del environment["WANDB_API_KEY"]
        script("run.py", *SHORT, "seed=4")
        assert "W&B          online" in said[-1], "by the key in the file"
        assert server.rows()
    names = {path.name for path in work.rglob("*")}
    assert {"metrics.jsonl", "config.yaml", "failed.txt", "report.html", "RESULTS.md", "measured.csv"} <= names
    assert {"debug.log", "debug-internal.log", "debug-core.log"} <= names
    assert not files_with_a_key(work)
    assert not [text for text in said if KEY in text or OTHER in text]
