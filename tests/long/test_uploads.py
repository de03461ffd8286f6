"""Rows at Weights & Biases after signals: none is lost, and none comes twice."""

import signal
import subprocess
import sys
import time

import pytest

from helpers.commands import ROOT, SHORT, folders, rows_of
from helpers.uploads import upload, without_clock
from helpers.wandb_server import Server


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_and_went_on_is_there_once(tmp_path, surroundings, mode, number):
    """By the command that it prints if it is offline; its folder has a space in its name."""
    long = [*SHORT, "measure.every=0", "log_every=1", "steps=500", "checkpoint_every=0.2", "output=my runs"]
    with Server() as server:
        environment = surroundings(server.address) | {"WANDB_MODE": mode}
        command = [sys.executable, str(ROOT / "run.py"), *long]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.time() + 120
        while not list(tmp_path.rglob("state.pt")) and process.poll() is None and time.time() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=60)
        (folder,) = folders(tmp_path)
        assert not (folder / "summary.json").exists()
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "going on from step" in done.stdout
        if mode == "offline":
            upload(tmp_path, environment, done.stdout)
        assert without_clock(server.rows()) == rows_of(folder)
        assert rows_of(folder)[-1]["step"] == 500
