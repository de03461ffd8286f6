"""Folders of runs that come from anyone: nothing in them is run, imported or built but what a config here names."""

import shutil
import sys

import pytest
import yaml

import measure
from hardmax.harness import side_by_side
from hardmax.harness.side_by_side import holds, known_targets
from hardmax.paths import CONFIGS
from helpers.cases import in_part
from helpers.commands import folders

RUN = ["task=dvae", "task.variables=2", "task.categories=2", "task.encoder_widths=[4]", "task.decoder_widths=[4]"]
RUN += ["steps=1", "batch_size=5", "measure.every=0", "measure.draws=2", "valid.every=0", "task.bound_samples=1"]
RUN += ["wandb.mode=disabled"]
MINE = "from hardmax.estimators import Reinforce\n\n\nclass Mine(Reinforce):\n    pass\n"
HARM = "import pathlib\n\npathlib.Path({!r}).touch()\n\n\nclass X:\n    pass\n"


@pytest.fixture
def foreign(command, tmp_path):
    """A finished run's folder; ``change`` says what is written into which part of its config."""
    assert command(*RUN)[0] == 0
    (folder,) = folders(tmp_path)
    good = yaml.safe_load((folder / "config.yaml").read_text())

    def change(part=None, content=None):
        config = yaml.safe_load(yaml.safe_dump(good))
        if part:
            *path, last = part.split(".")
            node = config
            for key in path:
                node = node[key]
            node[last] = content
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return change


def is_refused(outcome, folder, line):
    code, _, err = outcome
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith(f"error: {folder}/config.yaml: "), err
    assert line in err
    return True


@pytest.mark.parametrize(
    "name", in_part(["metrics.jsonl", "timings.jsonl", "failed.txt", "samples.png", "reconstructions.csv"], 3)
)
def test_a_run_that_goes_on_writes_through_no_link(foreign, command, tmp_path, name):
    """A folder without rows or a checkpoint, in which the name of a file that a run writes leads elsewhere."""
    folder, secret = foreign(), tmp_path / "secret"
    for path in folder.iterdir():
        if path.name != "config.yaml" and path.is_file():
            path.unlink()
    secret.write_text("kept")
    (folder / name).symlink_to(secret)
    code, _, err = command(*RUN, "retry=true")
    assert secret.read_text() == "kept"
    if name.endswith(".jsonl"):
        assert code == 1
        assert f"{name}: is a link" in err
    else:
        assert code == 0, err


@pytest.mark.parametrize("part", ["task", "data", "estimator", "optimizer", "task.data", "estimator.temperature"])
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.getoutput",
        "builtins.exec",
        "hardmax.tasks.data.download",
        "hardmax.tasks.data.os.system",
        "hardmax.harness.tracking.HOME.unlink",
        "hardmax.estimators.base.torch.load",
        "torch.optim.Optimizer",
        "hydra_plugins.hardmax_rows.Rows",
        "hardmax.harness.app.CheckSweep",
        " torch.optim.Adam",
        ["torch.optim.Adam"],
        None,
    ],
    ids=str,
)
def test_nothing_is_built_but_what_a_config_names(monkeypatch, tmp_path, part, target):
    """Of anything that can be imported; what is named is compared as text."""
    monkeypatch.setattr("builtins.__import__", lambda name, *_: pytest.fail(f"{name} was imported"))
    known = side_by_side.known_targets([CONFIGS])
    config = {"task": {"_target_": "hardmax.tasks.toy.Toy"}, "estimator": {}, "data": None, "optimizer": []}
    *path, last = part.split(".")
    node = config[path[0]] if path else config
    node[last] = {"_target_": target, "_partial_": True}
    with pytest.raises(side_by_side.Refused, match="is named by no config of this installation or of --config-dir"):
        side_by_side.check_saved_targets(config, known, tmp_path)


def test_code_beside_a_config_is_not_run(foreign, measured, tmp_path, monkeypatch, capfd):
    """Wherever the command is given: from above the output folder, from within it, or from within the run's."""
    folder = foreign()
    (folder / "payload.py").write_text(HARM.format(str(tmp_path / "harmed")))
    place = ".".join(folder.relative_to(tmp_path).parts)
    for target in ("payload.X", f"{place}.payload.X", "unittest.__main__.X", "this.X"):
        foreign("estimator._target_", target)
        assert is_refused(measured(folder, "measure.rivals=[]"), folder, f"{target} is named by no config")
    foreign("estimator._target_", "payload.X")
    for here in (folder, folder.parents[2]):
        monkeypatch.chdir(here)
        monkeypatch.setattr(sys, "argv", ["measure.py", str(folder), "measure.rivals=[]"])
        with pytest.raises(SystemExit):
            measure.main()
        capfd.readouterr()
        assert str(here) not in sys.path
    assert not (tmp_path / "harmed").exists()
    assert not {"payload", "this", "unittest.__main__"} & set(sys.modules)


@pytest.mark.parametrize("part", ["data", "task.data", "estimator.temperature"])
def test_a_config_does_not_say_where_files_are_written(foreign, measured, tmp_path, part):
    """A data set's files that are not in a folder are downloaded into it."""
    folder = foreign(part, {"_target_": "hardmax.tasks.data.mnist", "folder": str(tmp_path)})
    before = sorted(tmp_path.iterdir())
    assert is_refused(measured(folder, "measure.rivals=[]"), folder, "a saved config may not name a folder to read")
    assert sorted(tmp_path.iterdir()) == before


def test_what_stands_for_something_else_is_refused(foreign, measured):
    folder = foreign("task.variables", "${oc.env:HOME}")
    assert is_refused(measured(folder, "measure.rivals=[]"), folder, "${oc.env:HOME} is an interpolation")


def test_figures_of_a_measurement_are_not_written_through_links(foreign, measured, tmp_path):
    folder = foreign()
    kept = {name: tmp_path / f"kept-{name}" for name in ("measured.csv", "measured_logits.png")}
    for name, path in kept.items():
        path.write_text("mine")
        (folder / name).symlink_to(path)
    code, _, err = measured(folder, "measure.rivals=[]")
    assert code == 0, err
    assert {path.read_text() for path in kept.values()} == {"mine"}
    assert (folder / "measured.csv").read_text().startswith("estimator,")


def test_a_run_of_an_estimator_of_one_s_own_is_measured_with_its_config(command, measured, tmp_path):
    """Its module lies where the command is given, and is not taken from there without --config-dir."""
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/mine.yaml").write_text("_target_: mine_of_this_test.Mine\nsamples: 2\n")
    (tmp_path / "mine_of_this_test.py").write_text(MINE)
    code, _, err = command(*RUN, "estimator=mine", "--config-dir", "conf")
    assert code == 0, err
    (folder,) = folders(tmp_path)
    sys.modules.pop("mine_of_this_test")
    assert is_refused(measured(folder, "measure.rivals=[]"), folder, "is named by no config")
    assert "mine_of_this_test" not in sys.modules
    code, out, err = measured(folder, "--config-dir", "conf", "measure.rivals=[mine]")
    assert code == 0, err
    assert "mine (trained)" in out
    shutil.copytree(folder, tmp_path / "copy")
    assert measured("--config-dir=conf", "copy", "measure.rivals=[]")[0] == 0


def test_the_import_path_has_neither_the_run_s_folder_nor_the_output_folder(tmp_path):
    folder = tmp_path / "output/dvae/gumbel_softmax/0-key"
    chosen = {"task": "dvae", "estimator": "gumbel_softmax"}
    for place in (folder, folder / "wandb", *folder.parents[:3]):
        assert holds(folder, chosen, place)
    assert not holds(folder, chosen, tmp_path)
    moved = tmp_path / "runs/moved"
    assert holds(moved, chosen, moved)
    assert not holds(moved, chosen, tmp_path / "runs")


def test_configs_below_a_folder_that_are_in_no_group_name_nothing(tmp_path):
    """Such as those of runs, where the folder of configs is one that also has an output folder."""
    for place in ("output/dvae/nvil/0-key", "estimator", "task/more"):
        (tmp_path / place).mkdir(parents=True)
        target = place.replace("/", ".")
        (tmp_path / place / "config.yaml").write_text(f"_target_: {target}\npart: [{{_target_: {target}.part}}]\n")
    assert known_targets([tmp_path]) == {"estimator", "estimator.part", "task.more", "task.more.part"}
