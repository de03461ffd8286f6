"""What a run is known by: its key, its name, its code and its data; and that a change of any of them is noticed."""

import importlib
import json
import shutil
import sys

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax.harness.config import key_of, plain_config
from hardmax.harness.shared import said_once
from hardmax.reporting.runs import Run, read
from hardmax.tasks.base import Task
from helpers.cases import in_part
from helpers.commands import ROOT, SHORT, composed, folders

NONE = ["wandb.mode=disabled", "measure.every=0", "valid.every=0"]
TOY = ["task=toy", "estimator=reinforce", "steps=2", "batch_size=4", *NONE]


def key(*overrides):
    return key_of(plain_config(composed(*overrides)))


# ---------------------------------------------------------------- what is saved

TASKS = {p.stem: OmegaConf.load(p) for p in sorted((ROOT / "configs/task").glob("*.yaml"))}
DATA = sorted(p.stem for p in (ROOT / "configs/data").glob("*.yaml"))
TEXTS = ("language", "text", "tiny_shakespeare")
TAKEN = [
    [f"task={task}", *([f"data={data}"] if data else [])]
    for task, config in TASKS.items()
    for data in (DATA if "data" in config else [None])
    if data is None or (data in TEXTS) == (task == "text")
]


@pytest.mark.parametrize("choice", in_part(TAKEN, 4), ids=" ".join)
def test_what_is_saved_builds_the_task_with_its_data(tmp_path, choice):
    """Read back by itself, as by someone who has nothing but the file."""
    config = plain_config(composed(*choice))
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    saved = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert saved == config
    assert saved["task"].get("data") == saved["data"]
    if saved["data"]:
        assert saved["data"]["_target_"].endswith(choice[1].partition("=")[2])
    assert said_once(saved) == {**saved, "task": {k: v for k, v in saved["task"].items() if k != "data"}}


@pytest.mark.parametrize("task", in_part(TASKS, 3))
def test_a_saved_config_builds_the_run_s_task(command, tmp_path, task):
    small = {"bound_samples": 2, "test_samples": 2, "samples": 2, "variables": 3, "length": 3}
    sizes = [f"task.{name}={size}" for name, size in small.items() if name in TASKS[task]]
    images = ["data.binarisation=threshold"] if "data" in TASKS[task] and task != "text" else []
    fits_all = "estimator=reinforce"
    assert command(f"task={task}", fits_all, "steps=1", "batch_size=2", *sizes, *images, *NONE)[0] == 0
    (folder,) = folders(tmp_path)
    found = instantiate(OmegaConf.load(folder / "config.yaml").task, _convert_="all")
    state = torch.load(folder / "state.pt")["state"]["task"]
    assert isinstance(found, Task)
    assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert not images or found.data.binarisation == "threshold"
    (run,) = [read(folder)]
    assert isinstance(run, Run)
    assert not any(name.startswith("task.data") for name in run.config), "it is shown once"


# ---------------------------------------------------------------- keys and names


def test_numbers_are_compared_as_numbers():
    assert key("optimizer.lr=1") == key("optimizer.lr=1.0") == key("optimizer.lr=1e0")
    assert key("optimizer.lr=1") != key("optimizer.lr=2")
    assert key("optimizer.betas=[0,0.9]") == key("optimizer.betas=[0.0,0.9]")
    assert key("task=toy", "task.scale=0.1") == key("task=toy", "task.scale=1e-1")
    assert key("optimizer.fused=true") != key("optimizer.fused=1"), "a truth value is no number"
    assert key("optimizer.lr='1'") != key("optimizer.lr=1"), "nor is a text"


def test_a_whole_number_is_one_run(command, tmp_path):
    assert command(*TOY, "optimizer.lr=1")[0] == 0
    code, out, _ = command(*TOY, "optimizer.lr=1.0")
    assert (code, len(folders(tmp_path))) == (0, 1)
    assert "finished already" in out


@pytest.mark.parametrize("seed", [2**32, 2**32 + 5, 2**62])
def test_no_two_seeds_draw_the_same(command, tmp_path, seed):
    """A generator has 32 bits of a seed, so that 5 and 2^32 + 5 would be one."""
    code, _, err = command(*TOY, f"seed={seed}")
    assert (code, folders(tmp_path)) == (2, [])
    assert f"seed must be at most 4294967295, got {seed}" in err
    assert command(*TOY, "seed=4294967295")[0] == 0


OTHER_CLASS = [
    (["estimator=ars", "estimator._target_=hardmax.estimators.AR"], "toy/ars-AR"),
    (["estimator=ars", "estimator._target_=hardmax.estimators.ARS"], "toy/ars"),
    (["estimator=ars", "+estimator={_target_:hardmax.estimators.AR}"], "toy/ars-AR"),
    (["estimator=reinforce", "++estimator._target_=other_class.Reinforce"], "toy/reinforce-other_class.Reinforce"),
    (["task._target_=other_class.Toy"], "toy-other_class.Toy/reinforce"),
    (["estimator=released/relax_as_released"], "toy/relax_as_released"),
]


@pytest.mark.parametrize(("arguments", "folder"), OTHER_CLASS, ids=lambda value: " ".join(value))
def test_a_run_is_named_after_its_class(command, tmp_path, arguments, folder):
    source = "from hardmax.estimators import Reinforce\nfrom hardmax.tasks.toy import Toy\n"
    (tmp_path / "other_class.py").write_text(
        f"{source}class Reinforce(Reinforce):\n    pass\nclass Toy(Toy):\n    pass\n"
    )
    code, _, err = command(*TOY, *arguments)
    assert code == 0, err
    (found,) = folders(tmp_path)
    assert found.parent == tmp_path / "output" / folder
    assert OmegaConf.load(found / "config.yaml").choices.estimator == folder.split("/")[1]


def test_two_estimators_of_one_file_name_have_two_names(command, tmp_path):
    for place, samples in (("a", 1), ("b", 2)):
        (tmp_path / f"conf/estimator/{place}").mkdir(parents=True)
        text = f"_target_: hardmax.estimators.Reinforce\nsamples: {samples}\n"
        (tmp_path / f"conf/estimator/{place}/mine.yaml").write_text(text)
        code, _, err = command("--config-dir", "conf", *TOY, f"estimator={place}/mine")
        assert code == 0, err
    assert [f.parent.name for f in folders(tmp_path)] == ["a.mine", "b.mine"]


def test_where_data_lie_matters_unless_their_content_is_known(monkeypatch):
    assert key("data=mnist", "data.folder=/here") == key("data=mnist", "data.folder=/there") == key("data=mnist")
    own = ["++data._target_=mine.data", "+data.folder="]
    assert key(*own[:1], own[1] + "/here") != key(*own[:1], own[1] + "/there")


# ---------------------------------------------------------------- what has changed

IMAGES = """
import numpy as np
import torch
from hardmax.tasks.data import Images
{more}

def {name}(path="digits.npz"):
    grey = torch.tensor(np.load(path)["grey"])
    return Images(grey[:8], grey[8:12], grey[12:])
"""
GREY = torch.rand(16, 64, generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture
def project(tmp_path):
    """Everything a user may have written; files by what they are. Names are a test's own, as modules stay imported."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    files = {
        "class": (f"{name}_estimator.py", f"from {name}.shared import deep\nfrom hardmax.estimators import Reinforce\n"
                  "class Mine(Reinforce):\n    pass\n"),
        "package": (f"{name}/__init__.py", ""),
        "imported": (f"{name}/shared.py", "from . import deep\n"),
        "imported from there": (f"{name}/deep.py", "def late():\n    import more_of_" + name + "\n"),
        "imported late": (f"more_of_{name}.py", ""),
        "schedule": (f"{name}/schedules.py", "class Mine:\n    def __call__(self, share):\n        return 1.0\n"),
        "optimiser": (f"{name}/optimisers.py", "import torch\nclass Mine(torch.optim.SGD):\n    pass\n"),
        "data": (f"{name}/images.py", IMAGES.format(name="images", more=f"from {name}.again import schedules")),
        "two of one name": (f"{name}/again/schedules.py", ""),
        "beside": (f"{name}_rival.py", "from hardmax.estimators import Reinforce\nclass Rival(Reinforce):\n    pass\n"),
    }  # fmt: skip
    configs = {
        "estimator/mine.yaml": f"_target_: {name}_estimator.Mine",
        "estimator/rival.yaml": f"_target_: {name}_rival.Rival\nsamples: 2",
        "schedule/mine.yaml": f"_target_: {name}.schedules.Mine",
        "optimizer/mine.yaml": f"_target_: {name}.optimisers.Mine\nlr: 0.1",
        "data/mine.yaml": f"_target_: {name}.images.images",
    }
    for path, text in [*files.values(), *((f"conf/{path}", text) for path, text in configs.items())]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    import numpy as np

    np.savez(tmp_path / "digits.npz", grey=GREY)
    return {what: tmp_path / path for what, (path, _) in files.items()} | {"conf": tmp_path / "conf"}


OWN = ["--config-dir", "conf", "estimator=mine", "schedule=mine", "optimizer=mine", "data=mine", *NONE[:1]]
OWN += ["valid.every=0", "task.bound_samples=2", "task.variables=2", "steps=2", "batch_size=4"]
OWN += ["measure.rivals=[rival]", "measure.draws=2", "task.encoder_widths=[4]", "task.decoder_widths=[4]"]
PYTHON = ["class", "package", "imported", "imported from there", "imported late", "schedule", "optimiser", "data"]
PYTHON += ["two of one name", "beside"]


def as_new_process(folder):
    """Forgets the modules that lie below a folder, as a process does that begins."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


def test_own_code_and_data_that_have_changed_are_noticed(command, tmp_path, project):
    code, _, err = command(*OWN)
    assert code == 0, err
    code, out, err = command(*OWN)
    assert "finished already" in out, err
    for what in PYTHON:
        before = project[what].read_text()
        project[what].write_text(before + "\n# changed\n")
        if what == PYTHON[0]:
            assert "finished already" in command(*OWN)[1], "this process runs what it has imported"
        as_new_process(tmp_path)
        code, _, err = command(*OWN)
        assert code == 2, f"{what} has changed, and nothing was said"
        assert f"was finished by other code or data ({project[what].relative_to(tmp_path)}): fresh=true" in err
        project[what].write_text(before)
        as_new_process(tmp_path)
    import numpy as np

    np.savez(tmp_path / "digits.npz", grey=1 - GREY)
    code, _, err = command(*OWN)
    assert code == 2
    assert "was finished by other code or data (digits.npz): fresh=true" in err
    np.savez(tmp_path / "digits.npz", grey=GREY)
    (project["conf"] / "estimator/rival.yaml").write_text("_target_: hardmax.estimators.Reinforce\nsamples: 3")
    code, _, err = command(*OWN)
    assert code == 2
    assert "estimator/rival.yaml" in err


def test_data_without_any_option_for_their_path_are_noticed_when_a_run_goes_on(command, tmp_path, project):
    assert command(*OWN)[0] == 0
    (folder,) = folders(tmp_path)
    (folder / "summary.json").unlink()
    import numpy as np

    np.savez(tmp_path / "digits.npz", grey=1 - GREY)
    code, _, err = command(*OWN)
    assert code == 2
    assert "was begun by other code or data (digits.npz): fresh=true begins anew" in err


def test_data_that_options_name_are_noticed(command, tmp_path):
    """Whatever reads them, and however."""
    (tmp_path / "held.txt").write_text("1")
    arguments = [*TOY, "++task._target_=named_toy.Toy", "+task.held=held.txt"]
    (tmp_path / "named_toy.py").write_text(
        "import os\nfrom hardmax.tasks import toy\nclass Toy(toy.Toy):\n    def __init__(self, held, **more):\n"
        "        super().__init__(**more)\n"
    )
    assert command(*arguments)[0] == 0
    assert "finished already" in command(*arguments)[1]
    (tmp_path / "held.txt").write_text("2")
    assert "was finished by other code or data (held.txt)" in command(*arguments)[2]
    (tmp_path / "held.txt").unlink()
    assert "finished already" in command(*arguments)[1], "what is gone has not changed"


def test_only_data_files_are_taken_for_data(command, tmp_path):
    assert command(*SHORT, *NONE)[0] == 0
    (folder,) = folders(tmp_path)
    found = json.loads((folder / "environment.json").read_text())
    assert found["data"] == {}
    rooms = {name.split("/")[1] for name in found["code"]}
    assert {"estimators", "tasks", "harness"} <= rooms
    assert "reporting" not in rooms


def test_other_versions_are_said_when_a_run_goes_on(command, tmp_path):
    assert command(*TOY)[0] == 0
    (folder,) = folders(tmp_path)
    (folder / "summary.json").unlink()
    kept = json.loads((folder / "environment.json").read_text())
    shutil.copytree(folder, tmp_path / "kept")
    _, out, err = command(*TOY)
    assert "going on from" in out
    assert " was " not in err
    (folder / "summary.json").unlink()
    kept["versions"]["torch"] = "1.0"
    (folder / "environment.json").write_text(json.dumps(kept))
    code, out, err = command(*TOY)
    assert (code, "going on from" in out) == (0, True)
    assert f"torch was 1.0 and is {torch.__version__}: rows from here on may differ" in err
