"""Jobs on several GPUs, which are not there: their number is faked."""

import re
from collections import Counter

import pytest
import torch

from hardmax.harness import run as run_module
from hardmax.harness import tracking
from hardmax.harness.config import check, device_of, key_of, plain_config
from hardmax.harness.shared import Refused
from helpers.commands import SHORT, composed
from helpers.processes import finish

COUNT = 4
# For the processes of a sweep: four GPUs, and a job says where it would have gone.
FAKED = """
import torch

torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 4
torch.cuda.set_device = lambda device: None


def to(module, device):
    raise ValueError(f"it goes to {device}")


torch.nn.Module.to = to
"""
JOBS = ["-m", *SHORT, "wandb.mode=disabled", "estimator=reinforce", "seed=range(8)"]


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: COUNT)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


def test_eight_jobs_put_two_on_each_of_four_gpus(command, monkeypatch, gpus):
    found = []

    def prepare(cfg, task, estimator, device, *_):
        found.append(str(device))
        raise Refused("it is not there")

    monkeypatch.setattr(run_module, "prepare", prepare)
    command(*JOBS, "hydra/launcher=serial")
    assert found == [f"cuda:{i}" for i in (0, 1, 2, 3, 0, 1, 2, 3)]


@pytest.mark.long
def test_jobs_of_processes_of_their_own_are_spread_as_well(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(FAKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, _, err = finish(*JOBS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", where=tmp_path)
    assert Counter(re.findall(r"it goes to (cuda:\d)", err)) == {f"cuda:{i}": 2 for i in range(COUNT)}


def test_a_gpu_that_is_there_is_taken_and_is_no_part_of_a_run_s_name(gpus):
    cfg = composed("task=toy", "device=cuda:1")
    check(cfg)
    assert device_of(cfg) == torch.device("cuda:1")
    assert device_of(composed("task=toy")) == torch.device("cuda"), "no job of a sweep"
    names = {key_of(plain_config(composed("task=toy", f"device={d}"))) for d in ("auto", "cuda", "cuda:1", "cuda:3")}
    assert len(names) == 1
    assert names != {key_of(plain_config(composed("task=toy", "device=cpu")))}


def test_a_gpu_that_is_not_there_is_refused(gpus):
    with pytest.raises(Refused, match="device=cuda:4 is not there; accepted here: auto, cpu, cuda, cuda:0, cuda:1, cu"):
        check(composed("task=toy", "device=cuda:4"))


def test_the_environment_says_which_gpu(monkeypatch, gpus):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    for name, number in (("cuda", 0), ("cuda:2", 2)):
        found = tracking.environment(torch.device(name))
        assert (found["device"], found["gpu"], found["visible_gpus"]) == ("A card", number, "4,5,6,7")
