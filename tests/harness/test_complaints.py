"""What is said of options of classes of the user's own: theirs, and not those of the project's."""

import pytest

import hardmax
from hardmax.harness.shared import Refused
from helpers.commands import folders

OWN = """
import torch
from hardmax.estimators import Reinforce
from hardmax.tasks.toy import Toy


class Mine(Reinforce):
    def __init__(self, samples=1, scale=1.0, hidden=3):
        super().__init__(samples=samples)


class Slots(Toy):
    def __init__(self, arms=3, noise=0.1):
        super().__init__(1, 4)
        torch.ones(3).reshape(arms, 1)
"""
CONFIGS = {
    "estimator/mine": "_target_: own_slots.Mine\nsamples: 1\nscale: ${extra.scale}\n",
    "estimator/misspelt": "_target_: own_slots.Mnie\n",
    "task/slots": "_target_: own_slots.Slots\narms: 3\nnoise: 0.1\n",
}
QUICK = ["steps=2", "measure.every=0", "valid.every=0", "wandb.mode=disabled", "+extra.scale=1"]
BOTH = ["-m", "estimator=mine,reinforce"]
MINE = "estimator takes: samples, scale"
ELSEWHERE = "; --config-dir FOLDER says where yours is"


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_slots.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in CONFIGS.items():
        path = tmp_path / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize("how", ["--config-dir", "searchpath"])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["estimator=mine", "estimator.baselin=3"], f"estimator.baselin is no option; {MINE}\n"),
        (["task=slots", "task.armz=3"], "task.armz is no option (did you mean task.arms?); task takes: arms, noise\n"),
        (
            ["estimator=mine", "estimator.hidden=4"],
            "estimator.hidden is not in the YAML of estimator=mine, but own_slots.Mine takes it: list it there, or say "
            "+estimator.hidden=VALUE\n",
        ),
        ([*BOTH, "estimator.baseline=none"], "estimator.baseline is no option of the config that the jobs vary: with"),
        (
            [*BOTH, "estimator.nonsense=3"],
            "estimator.nonsense is no option; estimator=mine takes: samples, scale; with",
        ),
        ([*BOTH, "estimator.baseline=none,batch"], f"baseline is no option; {MINE}, with estimator=mine, which is am"),
        (["-m", "estimator=mine", "estimator.baselin=3"], f"estimator.baselin is no option; {MINE}\n"),
        (["estimator=misspelt"], "estimator._target_=own_slots.Mnie: own_slots has no Mnie (did you mean Mine?)\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_options_of_the_user_s_own_are_offered(own, command, how, arguments, line):
    place = ["--config-dir", "conf"] if how == "--config-dir" else [f"hydra.searchpath=[file://{own / 'conf'}]"]
    task = [] if "task=slots" in arguments else ["task=toy"]
    code, _, err = command(*place, *QUICK, *task, *arguments)
    assert code == 2
    assert line in err
    assert err.count("\n") == 1
    assert not folders(own)


def test_what_a_class_does_not_name_itself_is_said_with_what_was_given(own, command):
    code, _, err = command("--config-dir", "conf", *QUICK, "task=slots", "task.arms=two")
    assert code == 2
    assert err.startswith("error: task=slots with arms=two: reshape()")
    assert err.endswith("; it takes: arms, noise\n")


def test_the_options_of_the_user_s_own_are_offered_in_python(own):
    with pytest.raises(Refused, match=rf"^estimator.baselin is no option; {MINE}$"):
        hardmax.run("estimator=mine", "estimator.baselin=3", config_dir=own / "conf")


@pytest.mark.parametrize("choice", ["estimator=mine", "task=slots", "data=mine"])
def test_where_configs_of_the_user_s_own_are_can_be_said(own, command, choice):
    code, _, err = command(choice)
    assert (code, err.endswith(f"{ELSEWHERE}\n")) == (2, True), err
    code, _, err = command("--config-dir", "conf", choice.replace("=", "=no_"))
    assert (code, ELSEWHERE in err) == (2, False), err
