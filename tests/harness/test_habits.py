"""What users of Hydra expect to find: keys of their own, ``.hydra``, and folders whose names say what was varied."""

import os

from omegaconf import OmegaConf

from hardmax.harness.config import key_of, plain_config
from helpers.commands import SMALL, composed, folders

TOY = ["task=toy", "steps=2", "measure.every=0", "valid.every=0", "wandb.mode=disabled"]


def key(*overrides):
    return key_of(plain_config(composed(*overrides)))


def links(tmp_path):
    """Names in ``by-name``, and the folders that they lead to."""
    return {path.name: path.resolve() for path in sorted((tmp_path / "output/by-name").iterdir())}


def test_keys_of_one_s_own_are_part_of_no_key_unless_something_refers_to_them():
    assert key("+extra.width=64", "+extra.note=first") == key()
    width = "task.encoder_widths=[${extra.width}]"
    assert key("+extra.width=64", width) == key("task.encoder_widths=[64]") != key()
    assert key("+extra.width=32", width) == key("task.encoder_widths=[32]")


def test_a_key_of_one_s_own_sets_a_width_and_is_saved(command, tmp_path):
    small = [each for each in SMALL if "encoder" not in each]
    own = ["+extra.width=7", "+extra.people={who: [a,b]}", "task.encoder_widths=[${extra.width}]"]
    code, _, err = command(
        *own, *small, *TOY[1:], "batch_size=4", "task.bound_samples=2", "wandb.tags=[w${extra.width}]"
    )
    assert code == 0, err
    (folder,) = folders(tmp_path)
    saved = OmegaConf.load(folder / "config.yaml")
    assert saved.extra == {"width": 7, "people": {"who": ["a", "b"]}}
    assert saved.task.encoder_widths == [7]
    assert "w7" in saved.wandb.tags


def test_a_run_s_folder_has_what_hydra_keeps(command, tmp_path):
    assert command("-m", *TOY, "estimator=arsm,reinforce", "+extra.a=1", "notes=${extra.a}")[0] == 0
    for folder in folders(tmp_path):
        config, hydra, overrides = (
            OmegaConf.load(folder / f".hydra/{name}.yaml") for name in ("config", "hydra", "overrides")
        )
        assert OmegaConf.to_container(config)["notes"] == "${extra.a}", "as written"
        assert f"estimator={folder.parent.name}" in overrides
        assert hydra.hydra.runtime.choices.estimator == folder.parent.name
        assert hydra.hydra.overrides.task == overrides
        again = composed(*overrides)
        assert key_of(plain_config(again)) == folder.name.partition("-")[2], "they make the same run"


def test_links_say_what_was_varied(command, tmp_path):
    assert command("-m", *TOY, "estimator=arsm,reinforce", "optimizer.lr=0.1,0.010", "seed=3")[0] == 0
    found = links(tmp_path)
    assert [*found] == [f"toy-{name}-lr={rate}-3" for name in ("arsm", "reinforce") for rate in ("0.01", "0.1")]
    assert {*found.values()} == {folder.resolve() for folder in folders(tmp_path)}
    assert all(not os.path.isabs(os.readlink(tmp_path / "output/by-name" / name)) for name in found)


def test_two_runs_of_one_name_have_two_links(command, tmp_path, reported):
    for steps in (2, 3):
        assert command("-m", *TOY, f"steps={steps}", "optimizer.lr=0.1,0.2")[0] == 0
    assert command(*TOY, "optimizer.lr=0.1", "+extra.tag='a/b c'", "fresh=true")[0] == 0
    found = links(tmp_path)
    assert {*found.values()} == {folder.resolve() for folder in folders(tmp_path)}
    assert [name for name in found if name.endswith("-lr=0.1-tag=_a_b_c_-0")], "with all that was given"
    (deleted,) = (folder for name, folder in found.items() if name == "toy-gumbel_softmax-lr=0.1-0")
    for path in sorted(deleted.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    deleted.rmdir()
    assert command("-m", *TOY, "optimizer.lr=0.1,0.2")[0] == 0
    assert links(tmp_path)["toy-gumbel_softmax-lr=0.1-0"] == deleted
    code, out, err = reported("output")
    assert (code, "link" in out + err) == (0, False)


def test_rows_of_an_experiment_are_told_apart(command, tmp_path):
    rows = "hydra.sweeper.rows=[{estimator: reinforce, estimator.samples: '2,4', seed: 1}, {estimator: arsm, seed: 1}]"
    assert command("-m", *TOY, rows)[0] == 0
    assert [*links(tmp_path)] == ["toy-arsm-1", "toy-reinforce-samples=2-1", "toy-reinforce-samples=4-1"]
