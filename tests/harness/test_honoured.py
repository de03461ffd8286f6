"""What the command line says is done, or refused in one line: nothing is passed over without a word."""

import pytest

from hardmax.harness.online import wandb_mode
from helpers.cases import in_part
from helpers.commands import ROOT, folders

QUICK = ["task=toy", "steps=2", "batch_size=4", "measure.every=0", "valid.every=0", "wandb.mode=disabled"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    in_part(
        [
            (
                ["hydra.run.dir=mine"],
                "hydra.run.dir=mine would change nothing: runs lie in output=FOLDER, a sweep",
            ),
            (["hydra.job.chdir=true"], "hydra.job.chdir=true would change nothing"),
            (["-m", "seed=1,2", "hydra.job.chdir=true"], "hydra.job.chdir=true would change nothing"),
            (["-m", "seed=1,2", "hydra.sweep.subdir=x"], "hydra.sweep.subdir=x would change nothing"),
            (["hydra.output_subdir=x"], "hydra.output_subdir=x would change nothing"),
            (["hydra/launcher=joblib"], "hydra/launcher=joblib is about the jobs of a sweep: with -m"),
            (["hydra.sweep.dir=x"], "hydra.sweep.dir=x is about the jobs of a sweep: with -m"),
            (["output="], "output must name a folder, got nothing"),
            (["hydra/sweeper=rows"], "hydra/sweeper=rows is about the jobs of a sweep: with -m"),
            (["estimator._target_=nope.Mine"], "estimator._target_=nope.Mine: No module named 'nope'"),
            (["estimator._target_=hardmax.estimators.Nope"], "hardmax.estimators.Nope: hardmax.estimators has no Nope"),
            (["task._target_=hardmax.tasks.Tasc"], "hardmax.tasks has no Tasc (did you mean Task?)"),
            (["task._target_=report.Mnie"], "task._target_=report.Mnie: report has no Mnie"),
            (["estimator._target_=os.name"], "estimator._target_=os.name: it is no class or function"),
            (["estimator._target_=3"], "estimator._target_ must be the name of a class, such as module.Class, got 3"),
            (["~estimator._target_"], "estimator._target_ must be given: estimator._target_=CLASS"),
            (["seed=1,2"], "seed=1,2: several values are a sweep, which needs -m"),
            (["task=glob(*)"], "task=glob(*): several values are a sweep, which needs -m"),
            (["wandb.tags=a,b"], "wandb.tags=a,b: a list is expected, as in 'wandb.tags=[a,b]'"),
            (["notes=a,b"], "which needs -m; text needs quotes within quotes, as in 'notes=\"a,b\"'"),
            (["optimizer.betas=0.9,0.99"], "which needs -m; a list is 'optimizer.betas=[0.9,0.99]'"),
            (["task._target_=nope.Mine"], "task._target_=nope.Mine: No module named 'nope'"),
            (
                ["optimizer._target_=torch.optim.Nope"],
                "optimizer._target_=torch.optim.Nope: torch.optim has no Nope",
            ),
            (["schedule._target_=nope.Mine"], "schedule._target_=nope.Mine: No module named 'nope'"),
            (["task=dvae", "data._target_=nope.Mine"], "data._target_=nope.Mine: No module named 'nope'"),
            (
                ["-m", "seed=1,2", "task=dvae", "data._target_=nope.Mine"],
                "data._target_=nope.Mine: No module named 'nope'",
            ),
        ],
        2,
    ),
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_done_is_refused_in_one_line(command, tmp_path, arguments, line):
    flags = [a for a in arguments if a == "-m"]
    code, out, err = command(*flags, *QUICK, *[a for a in arguments if a not in flags])
    assert (code, folders(tmp_path)) == (2, [])
    assert line in err
    assert (out, err.count("\n")) == ("", 1), "nothing else is said"
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize("option", ["hydra.run.dir=.", "hydra.job.chdir=false", "~optimizer.betas"])
def test_what_changes_nothing_is_no_mistake(command, option):
    code, _, err = command(*QUICK, option)
    assert code == 0, err


@pytest.mark.parametrize("how", ["--config-dir", "searchpath"])
@pytest.mark.parametrize("name", ["estimator/reinforce", "task/toy", "config", "hydra/launcher/joblib"])
def test_a_config_that_the_project_s_own_would_go_before_is_refused(command, tmp_path, how, name):
    path = tmp_path / f"conf/{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("_target_: mine.Mine\n")
    place = ["--config-dir", "conf"] if how == "--config-dir" else [f"hydra.searchpath=[file://{tmp_path / 'conf'}]"]
    code, _, err = command(*place, *QUICK, "estimator=reinforce")
    assert code == 2
    assert (
        f"conf/{name}.yaml: there is a {name} of the project's own, which would be taken: give it another name" in err
    )
    path.write_bytes((ROOT / f"configs/{name}.yaml").read_bytes())
    assert command(*place, *QUICK, "estimator=reinforce")[0] == 0, "a copy is no other"


# ---------------------------------------------------------------- W&B's own variable


@pytest.mark.parametrize("given", ["Offline", "on", "true", " offline"])
@pytest.mark.parametrize("option", [[], ["wandb.mode=offline"]])
def test_a_wrong_mode_of_wandb_is_refused_before_any_work(command, tmp_path, monkeypatch, given, option):
    monkeypatch.setenv("WANDB_MODE", given)
    code, _, err = command(*QUICK[:-1], *option)
    assert (code, folders(tmp_path)) == (2, [])
    assert err == f"error: WANDB_MODE={given}: one of online, offline, disabled is expected\n"


@pytest.mark.parametrize(
    ("given", "option", "mode"),
    [
        ("", "offline", "offline"),
        ("dryrun", None, "offline"),
        ("disabled", None, "disabled"),
        ("dryrun", "disabled", "disabled"),
    ],
)
def test_modes_of_wandb_that_there_are(command, monkeypatch, given, option, mode):
    """A run of ``dryrun`` is kept offline, and can be uploaded as one of ``offline``."""
    monkeypatch.setenv("WANDB_MODE", given)
    code, out, err = command(*QUICK[:-1], *([f"wandb.mode={option}"] if option else []))
    assert code == 0, err
    assert f"W&B          {mode}" in out
    assert ("upload" in out) == (mode == "offline")
    assert "could not start" not in err


def test_an_empty_mode_of_wandb_is_none(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "")
    assert wandb_mode(None) is None
    monkeypatch.setenv("WANDB_MODE", "run")
    assert wandb_mode(None) == "online"
    assert wandb_mode("disabled") == "disabled"


# ---------------------------------------------------------------- options that not all jobs have

SOME = ["-m", *QUICK, "estimator=gumbel_softmax,arsm,softmax", "estimator.temperature=0.5,1", "seed=1,2"]


def test_an_option_that_not_all_jobs_have_offers_what_there_is(command, tmp_path):
    code, _, err = command(*SOME)
    assert (code, folders(tmp_path)) == (2, [])
    assert (
        "estimator.temperature is no option; estimator takes: limit, with estimator=arsm, which is among the jobs"
        in err
    )
    assert "hydra.sweeper.optional=[estimator.temperature] passes the others over" in err
    assert "did you mean" not in err


def test_an_optional_override_holds_where_there_is_the_option(command, tmp_path):
    code, _, err = command(*SOME, "hydra.sweeper.optional=[estimator.temperature]")
    assert code == 0, err
    names = [f.parent.name for f in folders(tmp_path)]
    assert {name: names.count(name) for name in names} == {"arsm": 2, "gumbel_softmax": 4, "softmax": 4}
    code, _, err = command(*SOME, "hydra.sweeper.optional=[estimator.temprature]")
    assert code == 2
    assert "hydra.sweeper.optional: estimator.temprature is no option of any job" in err


def test_a_mode_that_is_named_holds(command, tmp_path):
    """By an override, and by a config of the user's own."""
    short = ["task=toy", "steps=2", "measure.every=0", "valid.every=0", "wandb.mode=disabled", "seed=1,2"]
    code, out, err = command(*short, "hydra.mode=MULTIRUN")
    assert (code, "2 of 2 jobs ended (2 done)" in out) == (0, True), err
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    code, out, err = command("--config-dir", "conf", "experiment=mine", *short, "notes=again")
    assert (code, "2 of 2 jobs ended" in out) == (0, True), err


def test_rows_on_the_command_line(command, tmp_path):
    """As in the comment of the sweeper's own file."""
    text = (ROOT / "configs/hydra/sweeper/rows.yaml").read_text()
    (example,) = [line.strip("# '\n") for line in text.splitlines() if "hydra.sweeper.rows=" in line]
    assert command("-m", *QUICK, example)[0] == 0
    names = [f.parent.name for f in folders(tmp_path)]
    assert {name: names.count(name) for name in names} == {"arsm": 1, "gumbel_softmax": 2, "reinmax": 2}


def test_the_jobs_of_a_sweep_are_composed_once_for_each_choice(command, monkeypatch):
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load, composed = ConfigLoaderImpl.load_sweep_config, []
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", lambda *a: composed.append(a[2]) or load(*a))
    many = ["seed=range(30)", "optimizer.lr=0.1,0.2", "log_every=1,0"]
    code, _, err = command("-m", *QUICK, "estimator=softmax,arsm", *many)
    assert code == 2
    assert "log_every must be an integer of at least 1, got 0" in err
    assert len(composed) <= 2
