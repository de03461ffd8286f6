"""Settings worth trying, and what runs after a sweep or a search: the best of each estimator with other seeds."""

import itertools
import json
import re
import threading
from collections import Counter

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import OmegaConf

from hardmax import report
from hardmax.estimators import GumbelSoftmax, Reinforce
from hardmax.harness import run as run_module
from hardmax.harness.sources import Opened
from hardmax.reporting.groups import grouped
from hardmax.reporting.runs import find_runs
from hardmax.reporting.tuning import tuned
from helpers.commands import ROOT, SHORT, folders, installed, rows_of
from hydra_plugins.hardmax_rows import best_of_each, crossed, final_jobs

QUIET = [*SHORT, "wandb.mode=disabled", "measure.every=0", "valid.every=10"]
SPACE = ["-m", *QUIET, "hydra.sweeper.space=default", "hydra.sweeper.finals={seed:'2,3,4'}", "optimizer.lr=0.001,0.1"]
BOUNDS = {"ovis_asymptotic", "ovis_mc", "reweighted_wake_sleep", "tvo", "vimco", "vimco_arithmetic"}
LEFT_OUT = {"exact", "sparse_expectation"}  # which go through all outcomes
searching = pytest.mark.skipif(not installed("hydra_optuna_sweeper"), reason="the extra optuna is not installed")


def config(folder):
    return OmegaConf.load(folder / "config.yaml")


def merit(folder):
    return next(row["valid/elbo"] for row in reversed(rows_of(folder)) if "valid/elbo" in row)


def setting(folder):
    """Of its estimator and its rate, as text."""
    found = config(folder)
    return json.dumps([OmegaConf.to_container(found.estimator), found.optimizer.lr])


def assert_the_best_ran_again(tmp_path, tried, seeds):
    """For each estimator as many settings with the first seed, and the best of these, alone, with the others."""
    by_estimator = itertools.groupby(folders(tmp_path), key=lambda folder: folder.parent.name)
    for estimator, found in [(name, list(own)) for name, own in by_estimator]:
        first = [folder for folder in found if config(folder).seed == 0]
        assert len(first) == tried[estimator]
        best = setting(max(first, key=merit))
        again = [folder for folder in found if folder not in first]
        assert {setting(folder) for folder in again} == {best}
        assert sorted(config(folder).seed for folder in again) == seeds


@pytest.mark.long
def test_the_best_of_each_estimator_runs_again_with_other_seeds(command, tmp_path, monkeypatch):
    """Killed in a final run, the same command goes on; the report tells tuning seeds from others."""
    train, calls = run_module.train, []

    def dies_late(*arguments):
        calls.append(arguments)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(run_module, "train", dies_late)
    with pytest.raises(KeyboardInterrupt):
        command(*SPACE, "estimator=gumbel_softmax,arsm")
    code, out, err = command(*SPACE, "estimator=gumbel_softmax,arsm")
    assert code == 0, err
    assert "sweep: 12 of 12 jobs ended" in out
    assert_the_best_ran_again(tmp_path, {"gumbel_softmax": 4, "arsm": 2}, [2, 3, 4])
    tried = {config(f).estimator.temperature for f in folders(tmp_path) if f.parent.name == "gumbel_softmax"}
    assert tried == {each["temperature"] for each in GumbelSoftmax.worth_trying}
    monkeypatch.setattr("sys.argv", ["report.py", str(tmp_path / "output"), "--tune"])
    report.main()
    table = (tmp_path / "output/report/dvae_tuned.md").read_text()
    assert len(re.findall(r"2–4 \| +3 of 3", table)) == 2, table


def test_what_the_command_line_says_of_an_option_holds_for_settings_worth_trying(command, tmp_path):
    code, _, err = command("-m", *QUIET, "estimator=reinforce", "estimator.samples=3", "hydra.sweeper.space=default")
    assert code == 0, err
    found = [config(folder).estimator for folder in folders(tmp_path)]
    assert {each.samples for each in found} == {3}
    assert {each.baseline for each in found} == {each["baseline"] for each in Reinforce.worth_trying}


def test_a_failed_setting_is_never_the_best(command, tmp_path):
    code, out, err = command(*SPACE[:-1], "estimator=softmax", "estimator.temperature=0,1")
    assert code == 1
    assert "temperature must be a number above 0, got 0" in err
    assert "sweep: 5 of 5 jobs ended (4 done, 1 failed)" in out
    assert {config(folder).estimator.temperature for folder in folders(tmp_path)} == {1}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["hydra.sweeper.space=mine"], "hydra.sweeper.space must be default or null, got mine"),
        (["hydra.sweeper.finals={sed:'1,2'}"], "sed is no option (did you mean seed?)"),
        (["hydra.sweeper.finals={seed:'1,-2'}"], "seed must be an integer of at least 0, got -2"),
        (["hydra.sweeper.finals=3"], 'hydra.sweeper.finals must be a dictionary such as {seed:"2,3"} or null, got 3'),
        (["hydra.sweeper.params=[seed]"], "hydra.sweeper.params=[seed]: a dictionary such as {NAME:VALUE} is expected"),
        (["hydra.sweeper.rows={estimator:arsm}"], "hydra.sweeper.rows={estimator:arsm}: a list such as"),
        (["hydra.sweeper.rows=[arsm]"], "hydra.sweeper.rows must be a list of dictionaries such as [{"),
        (["hydra.sweeper.optional=3"], "hydra.sweeper.optional must be a list of options such as [estimator.temp"),
        (["hydra.sweeper.max_batch_size=two"], "max_batch_size must be an integer of at least 1 or null, got two"),
        (["hydra.sweeper.max_batch_size=0"], "max_batch_size must be an integer of at least 1 or null, got 0"),
    ],
)
def test_what_is_wrong_is_refused_before_the_first_job(command, tmp_path, arguments, line):
    code, _, err = command("-m", *QUIET, "seed=1", *arguments)
    assert (code, folders(tmp_path)) == (2, [])
    assert line in err
    assert len(err.strip().splitlines()) == 1, err


def test_a_setting_without_a_choice_may_be_the_best():
    jobs = [["seed=1"], ["seed=2"], ["estimator=arsm", "seed=1"]]
    assert best_of_each(jobs, [1.0, 2.0, 0.5]) == [{}, {"estimator": "arsm"}]


def test_the_best_of_each_problem_by_the_mean_over_seeds():
    names = "estimator", "lr", "seed", "task"
    job = lambda *values: [f"{k}={v}" for k, v in zip(names, (*values, "dvae")[:4], strict=True)]
    tried = {
        tuple(job("a", 1, 1)): -3.0,
        tuple(job("a", 1, 2)): -1.0,  # the best single run
        tuple(job("a", 2, 1)): -1.5,
        tuple(job("a", 2, 2)): -1.5,
        tuple(job("a", 3, 1)): 0.0,
        tuple(job("a", 3, 2)): None,  # failed
        tuple(job("a", 1, 1, "toy")): -7.0,
        tuple(job("b", 1, 1)): -9.0,
        tuple(job("b", 2, 1)): -9.0,  # a tie
        tuple(job("c", 1, 1)): None,
    }
    best = best_of_each([list(one) for one in tried], list(tried.values()))
    assert [(one["estimator"], one["task"], one["lr"]) for one in best] == [
        ("a", "dvae", "2"),
        ("a", "toy", "1"),
        ("b", "dvae", "1"),
    ]
    finals = final_jobs(best[:1], {"seed": "5,6"}, OverridesParser.create())
    assert finals == [["estimator=a", "lr=2", "task=dvae", f"seed={seed}"] for seed in (5, 6)]


@pytest.mark.long
@searching
def test_several_estimators_have_a_search_each(command, tmp_path):
    """With as many trials, as the report says at which it ends."""
    rates = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
    search = ["hydra/sweeper=search", "hydra.sweeper.n_trials=2", "estimator=gumbel_softmax,arsm,reinforce"]
    code, out, err = command(*SPACE[:-2], "hydra.sweeper.finals={seed:'2,3'}", *search, rates)
    assert code == 0, err
    assert "sweep: 12 of 12 jobs ended" in out
    assert_the_best_ran_again(tmp_path, {"gumbel_softmax": 2, "arsm": 2, "reinforce": 2}, [2, 3])
    tried = {(c.samples, c.baseline) for f in folders(tmp_path) if (c := config(f).estimator)._target_.endswith("orce")}
    assert tried <= {(each["samples"], each["baseline"]) for each in Reinforce.worth_trying}
    found = {path.stem for path in tmp_path.rglob("optimization_results*.yaml")}
    assert found == {f"optimization_results_{name}" for name in ("gumbel_softmax", "arsm", "reinforce")}
    code, out, err = command(*SPACE[:-2], "hydra.sweeper.finals={seed:'2,3'}", *search, rates)
    assert code == 0, err
    assert "(12 finished before)" in out
    assert out.splitlines()[-1].endswith("report.py output --tune")
    known, runs = ["arsm", "gumbel_softmax", "reinforce"], find_runs([tmp_path / "output"]).runs
    compared = tuned("dvae", grouped(runs, [], known, [])["dvae"], [], known, None)
    assert {entry.label: len(entry.settings) for entry in compared.entries} == dict.fromkeys(known, 2)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/experiment").glob("leaderboard_*.yaml")), ids=lambda p: p.stem)
def test_every_estimator_of_a_leaderboard_has_as_many_trials_and_the_same_seeds(path):
    """But for those that are named at the head of the file, with fewer."""
    sweeper, about = OmegaConf.load(path).hydra.sweeper, path.read_text().split("defaults:")[0]
    assert (sweeper.space, sweeper.finals, sweeper.params) == ("default", {"seed": "2,3,4,5,6"}, {"seed": "1"})
    trials = Counter()
    for row in crossed([], sweeper.rows, None, OverridesParser.create()):
        target = OmegaConf.load(ROOT / f"configs/estimator/{row['estimator']}.yaml")._target_
        trials[row["estimator"]] += len(get_class(target).worth_trying)
    stated = {"Six": 6, "Ten": 10}[re.search(r"^# (\w+) settings of each", about, re.MULTILINE)[1]]
    fewer = {name for name, number in trials.items() if number != stated}
    assert all(re.search(rf"^# - {name}: .*three rates, no more", about, re.MULTILINE) for name in fewer)
    assert fewer <= {"local_expectation"}
    absent = {path.stem for path in (ROOT / "configs/estimator").glob("*.yaml")} - trials.keys()
    assert absent <= LEFT_OUT | (BOUNDS | {"local_expectation"} if path.stem == "leaderboard_structured" else set())


def test_what_a_sweep_reads_meanwhile_is_not_data_of_a_run(tmp_path):
    """A sweep looks at the outcomes of its jobs while one of them reads its data."""
    for name in ("outcome", "data"):
        (tmp_path / name).write_text("{}")

    def looks():
        Opened.apart.add(threading.get_ident())
        (tmp_path / "outcome").read_text()

    with Opened() as opened:
        looking = threading.Thread(target=looks)
        looking.start()
        looking.join()
        (tmp_path / "data").read_text()
    assert {name for name in opened if name.startswith(str(tmp_path))} == {str(tmp_path / "data")}
