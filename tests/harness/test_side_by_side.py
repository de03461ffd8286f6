"""measure.py takes what run.py takes, in any order."""

import pandas as pd
import pytest

from hardmax.estimators import GumbelSoftmax
from hardmax.harness.refusals import with_flags_first
from helpers.cases import in_part

TOY = ["task=toy", "measure.draws=4", "measure.reference_draws=0"]


@pytest.fixture
def own(tmp_path):
    """An estimator, an experiment and a config of the user's own, in ``conf``."""
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/mine.yaml").write_text("_target_: own_estimator.Mine\nsamples: 2\n")
    config = "defaults: [config, _self_]\nmeasure: {draws: 3}\n"
    (tmp_path / "conf/short.yaml").write_text(config)
    (tmp_path / "own_estimator.py").write_text(
        "from hardmax.estimators import Reinforce\n\n\nclass Mine(Reinforce):\n    pass\n"
    )


def names(tmp_path):
    return list(pd.read_csv(tmp_path / "output/measured/toy/measured.csv").estimator.unique())


def test_an_estimator_of_one_s_own_is_measured_and_a_rival(own, measured, tmp_path):
    arguments = ["estimator=mine", "--config-dir", "conf", "measure.rivals=[mine,{mine:{samples:1}}]"]
    code, _, err = measured(*TOY, *arguments, "estimator=reinforce")
    assert code == 0, err
    assert [name.partition("(")[0].strip() for name in names(tmp_path)][:2] == ["reinforce", "mine"]
    code, _, err = measured(*TOY, "estimator=mine", "--config-dir", "conf", "measure.rivals=[]")
    assert code == 0, err
    assert names(tmp_path) == ["mine"]


def test_a_rival_s_config_may_build_on_others(measured, tmp_path):
    """On another file of its group, and on the rest of the config."""
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/twice.yaml").write_text("defaults: [reinforce, _self_]\nsamples: 2\n")
    rest = "_target_: hardmax.estimators.Reinforce\nsamples: ${measure.draws}\n"
    (tmp_path / "conf/estimator/many.yaml").write_text(rest)
    rivals = "measure.rivals=[twice,{twice:{samples:3}},many]"
    code, _, err = measured(*TOY, "estimator=arsm", "--config-dir", "conf", rivals)
    assert code == 0, err
    found = pd.read_csv(tmp_path / "output/measured/toy/measured.csv").set_index("estimator").evaluations
    assert [found[name].max() for name in ("twice", "twice(samples=3)", "many")] == [2, 3, 100]


def test_settings_worth_trying_are_measured_and_one_is_recommended(own, measured, tmp_path):
    toy = [*TOY, "task.variables=2", "task.categories=3", "measure.rival_steps=1", "task.objective=quadratic"]
    arguments = ["estimator=mine", "--config-dir", "conf", "measure.rivals=worth_trying"]
    code, out, err = measured(*toy, *arguments)
    assert code == 0, err
    found = pd.read_csv(tmp_path / "output/measured/toy/measured.csv")
    labels = {f"gumbel_softmax(temperature={each['temperature']})" for each in GumbelSoftmax.worth_trying}
    assert labels | {"mine", "zgr", "reinforce(samples=4,baseline=leave_one_out)"} <= set(found.estimator)
    known = found[found.mse.notna()]
    assert (known.mse_per_evaluation == known.mse * known.evaluations).all()
    assert (known.mse_per_second == known.mse * known.seconds).all()
    assert out.count("\nTake ") == 2, "of the logits and of the encoder"
    assert "squared error x evaluations" in out


def test_a_single_estimator_is_recommended_to_nobody(measured):
    code, out, err = measured(*TOY, "estimator=arsm", "measure.rivals=[]")
    assert code == 0, err
    assert "Take " not in out


def test_a_config_of_one_s_own_is_taken(own, measured, tmp_path):
    code, _, err = measured("task=toy", "--config-dir=conf", "--config-name=short", "measure.rivals=[]")
    assert code == 0, err
    assert set(pd.read_csv(tmp_path / "output/measured/toy/measured.csv").draws) == {3}


def test_flags_that_show_something_measure_nothing(own, measured, tmp_path):
    code, out, _ = measured("--cfg", "job", "task=toy", "--config-dir", "conf", "estimator=mine")
    assert code == 0
    assert "_target_: own_estimator.Mine" in out
    assert not (tmp_path / "output").exists()
    code, out, _ = measured("--help")
    assert code == 0
    assert "--config-dir" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    in_part(
        [
            (["-m", "task=toy"], "-m: measure.py puts estimators side by side by itself: measure.rivals=[NAME,NAME]"),
            (["a", "b"], "b: one run's folder is measured at a time, and a is given"),
            (["a", "--config-dir", "conf"], "a is not the folder of a finished run"),
            (["--config-dir", "nowhere"], "nowhere' not found"),
            (["--unknown", "task=toy"], "unrecognized arguments: --unknown"),
            (["task=toy", "--config-dir", "conf", "estimator=min"], "estimator=min does not exist (did you mean mine?"),
        ],
        2,
    ),
)
def test_what_it_does_not_take_is_refused_in_one_line(own, measured, arguments, line):
    code, _, err = measured(*arguments)
    assert code == 2
    assert line in err
    assert err.count("\n") == 1, err


def test_flags_and_overrides_may_come_in_any_order(own, command):
    """Of run.py, too."""
    assert with_flags_first(["-m", "a=1", "--config-dir", "x"]) == ["-m", "a=1", "--config-dir", "x"], "as it was"
    mixed = with_flags_first(["a=1", "--config-dir", "x", "b=2", "-m"])
    assert mixed == ["--multirun", "--config-dir=x", "a=1", "b=2"]
    code, out, err = command("task=toy", "--config-dir", "conf", "estimator=mine", "--cfg", "job")
    assert code == 0, err
    assert "own_estimator" in out


def test_the_truth_is_told_where_the_trained_estimator_has_none(measured):
    """A bound is no expectation, and has no bias; its rivals have."""
    sizes = ["task.variables=1", "task.categories=2", "task.encoder_widths=[4]", "task.decoder_widths=[4]"]
    of_digits = ["task=dvae", *sizes, "task.kl=sampled", "batch_size=2", "measure.draws=4"]
    code, out, err = measured(*of_digits, "estimator=vimco", "measure.rivals=[reinforce]")
    assert code == 0, err
    assert "truth: the exact gradient" in out
    assert "truth: none" not in out


def test_what_was_measured_before_is_kept(measured, tmp_path):
    place = tmp_path / "output/measured/toy"
    kept = []
    (place / "measured.1.csv").parent.mkdir(parents=True)
    (place / "measured.1.csv").write_text("of an earlier day")
    for n, rival in enumerate(("arsm", "reinforce"), 1):
        code, out, err = measured(*TOY, "estimator=reinmax", f"measure.rivals=[{rival}]")
        assert code == 0, err
        assert (f"what was measured here before is kept: output/measured/toy/measured.{n}.csv" in out) == (n > 1)
        kept.append((place / "measured.csv").read_bytes())
    assert (place / "measured.2.csv").read_bytes() == kept[0]
    assert (place / "measured.1.csv").read_text() == "of an earlier day"
    assert (place / "measured_logits.2.png").is_file()
