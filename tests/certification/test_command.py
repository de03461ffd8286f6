"""The command: what it certifies, what it prints and writes, its exit codes, and what it refuses in one line."""

import json
import subprocess
import sys

import pytest
import torch

from hardmax import certification as c
from hardmax import certify as command
from hardmax.certification import limits, samplers
from hardmax.estimators import ARSM

MINE = """
import torch
from hardmax.estimators import Reinforce
from hardmax.estimators.base import Estimator, graft


class Mine(Reinforce):
    compiles = False

    def __init__(self, scale=1.0, samples=1):
        super().__init__(samples=samples, baseline="none")
        self.scale = scale

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        (gradient,) = torch.autograd.grad(cost.sum(), logits, retain_graph=True)
        return graft(cost, logits, (self.scale - 1) * gradient)


def soft(logits, temperature=1.0):
    return (logits / temperature).softmax(-1)


def odd(logits):
    return logits * 0 + 1
"""
MY_TASK = """
from hardmax.tasks.toy import Toy


class Mine(Toy):
    def __init__(self, categories=4, shift=0.0):
        super().__init__(1, categories)
        self.shift = shift

    def expected_cost(self, logits):
        return super().expected_cost(logits) + self.shift
"""


@pytest.fixture
def certified(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder that has a module mine.py; gives exit code, output and errors."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "my_task.py").write_text(MY_TASK)
    (tmp_path / "ending.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("mine", "my_task"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(samplers, "DRAWS_WITHOUT_NAN", 20_000)
    monkeypatch.setattr(limits, "EXTREME", limits.EXTREME[-2:])

    def run(*arguments):
        return command.main(list(arguments)), *capsys.readouterr()

    return run


def test_a_class_of_ones_own_that_is_what_it_claims(certified, tmp_path):
    code, out, _ = certified("mine.Mine", "samples=2", "--json", "found.json")
    assert code == 0, out
    assert out.startswith("Mine(samples=2) (torch")
    assert "claims: target expectation, unbiased, only values of the objective, S evaluations, no torch.compile" in out
    assert "gradient: unbiased, as claimed (0)" in out
    assert "certified: all that is claimed holds" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["holds"]
    assert found["claims"]["unbiased"]
    assert found["ratios"] == pytest.approx(
        {"reinforce": 0.5, "work_reinforce": 1.0, "leave_one_out": 1.352, "work_leave_one_out": 1.352}, abs=0.003
    )
    for measured in found["measurements"]:
        assert measured["draws"] is None, "two draws can be enumerated"
        assert measured["value"] == pytest.approx(measured["target"], abs=1e-9)
        assert measured["bias"] < 1e-9
        assert (measured["claimed"], measured["evaluations"]) == (2, 2)


def test_a_wrong_class_fails_with_lines_that_reproduce_it(certified):
    code, out, _ = certified("mine:Mine", "scale=-1")
    assert code == 1
    assert "gradient: claimed unbiased, biased by up to 200.0%" in out
    assert "NOT certified" in out
    lines = out.splitlines()
    (columns,) = [line for line in lines if line.startswith("(K, C)")]
    assert columns.split()[2:] == ["(1,", "5)", "(2,", "3)", "(3,", "2)"]
    (bias,) = [line for line in lines if line.startswith("gradient's bias")]
    assert bias.split()[2:] == ["200.0%"] * 3
    at = lines.index(next(line for line in lines if line.startswith("expected value and gradients")))
    assert lines[at].endswith("FAILS")
    assert "its sign is flipped" in lines[at + 1]
    code = "\n".join(line.strip() for line in lines[at + 2 : at + 8])
    assert code.endswith("check_expectation(estimator, SmallProblem(1, 5))")
    with pytest.raises(c.Failed, match="its sign is flipped"):
        exec(code, {})


def test_an_estimator_of_the_configs(certified, tmp_path):
    (tmp_path / "conf" / "estimator").mkdir(parents=True)
    (tmp_path / "conf" / "estimator" / "mine.yaml").write_text("_target_: mine.Mine\nscale: 2.0\nsamples: 1\n")
    for arguments in (["estimator=mine", "estimator.scale=0.5"], ["mine.Mine", "scale=0.5"]):
        code, out, err = certified(*arguments, "--config-dir", "conf")
        assert code == 1, err
        assert out.startswith("estimator=mine: Mine(scale=0.5, samples=1)")
        assert "it is 0.5 times what it should be" in out


def test_a_sampler_of_anybodys(certified):
    code, out, _ = certified("--sampler", "mine:soft", "temperature=0.5")
    assert code == 0, out
    assert "a sampler, which claims nothing; gives points of the simplex" in out
    assert "law" not in out, "points of the simplex have none to be held to"
    assert "certified: all that every sampler must do holds" in out


def test_a_sampler_that_is_none_is_said_to_be(certified):
    code, out, _ = certified("--sampler", "mine:odd")
    assert code == 1
    assert "z is neither one-hot nor on the simplex: [1, 1, 1, 1, 1]" in out
    assert "estimator = Sampler(odd)" in out


def test_a_task_of_ones_own(certified, tmp_path):
    code, out, err = certified("--task", "my_task.Mine", "categories=3", "--json", "found.json")
    assert code == 0, out + err
    assert out.startswith("Mine(categories=3) (torch")
    assert "certified: all that every task must do holds" in out
    assert json.loads((tmp_path / "found.json").read_text())["holds"]
    code, out, _ = certified("--task", "my_task:Mine", "shift=1.0")
    assert code == 1
    lines = out.splitlines()
    at = lines.index(next(line for line in lines if line.endswith("FAILS")))
    assert lines[at].startswith("the expected cost is the sum over all outcomes")
    assert "where the sum over all outcomes is" in lines[at + 1]
    code = "\n".join(line.strip() for line in lines[at + 2 : at + 6])
    assert code.endswith("check_expected_cost(task)")
    with pytest.raises(c.Failed, match="where the sum over all outcomes is"):
        exec(code, {})
    assert "NOT certified: 1 of" in out


def test_a_task_of_the_configs(certified, tmp_path):
    code, out, err = certified("--task", "routing", "experts=2", "data.binarisation=none", "router_widths=[4]")
    assert code == 0, out + err
    assert out.startswith("task=routing: Routing(experts=2, router_widths=[4]")
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "mine.yaml").write_text("_target_: my_task.Mine\nshift: 0.0\n")
    for name in ("mine", "my_task.Mine"):
        code, out, err = certified("--task", name, "shift=1.0", "--config-dir", "conf")
        assert code == 1, err
        assert out.startswith("task=mine: Mine(shift=1.0)")


@pytest.mark.parametrize(
    ("group", "arguments", "message"),
    [
        (
            "estimator",
            ["mine.Mine"],
            "2 files below conf/estimator have it as their _target_, one is expected: a.yaml, b.",
        ),
        ("estimator", ["mine.Mine"], "b.yaml; estimator=NAME chooses one by its name"),
        (
            "estimator",
            ["mine.Min"],
            "0 files below conf/estimator have it as their _target_, one is expected; there are: a",
        ),
        ("task", ["--task", "mine:Min"], "a.yaml (mine.Mine), b.yaml (mine.Mine), c.yaml (mine.Mine2); --task NAME ch"),
    ],
)
def test_a_class_of_several_configs_or_none_is_refused(certified, tmp_path, group, arguments, message):
    (tmp_path / "conf" / group).mkdir(parents=True)
    for name, target in {"a": "mine.Mine", "b": '"mine.Mine"', "c": "mine.Mine2"}.items():
        (tmp_path / f"conf/{group}/{name}.yaml").write_text(f"_target_: {target}\n")
    code, _, err = certified(*arguments, "--config-dir", "conf")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "nowhere.Mine"], "nowhere.Mine: ModuleNotFoundError: No module named 'nowhere'"),
        (["--task", "mine.Mine"], "mine.Mine is no subclass of hardmax.tasks.Task"),
        (["--task", "mine.soft"], "mine.soft is no subclass of hardmax.tasks.Task"),
        (["my_task.Mine"], "my_task.Mine is no subclass of hardmax.estimators.Estimator; of a task use --task my_task"),
        (["--task", "my_task.Mine", "categories=0"], "ValueError: categories must be an integer of at least 1, got 0"),
        (["--task", "my_task.Mine", "categories"], "'categories' is no option: key=value is expected"),
        (["--task", "tory"], "Could not find 'task/tory' (did you mean toy?); --config-dir FOLDER says where yours is"),
        (["--task", "toy", "categories=0"], "categories must be an integer of at least 1, got 0"),
        (["--task", "toy", "categorie=1"], "task.categorie is no option (did you mean task.categories?); task takes: "),
        (
            ["--task", "my_task.Mine", "shifts=1"],
            "got an unexpected keyword argument 'shifts'; it takes: categories, shift",
        ),
        (["--task", "my_task.Mine", "--config-dir", "nowhere"], "0 files below nowhere/task have it as their _target_"),
        (["--task", "toy", "--sampler", "mine:soft"], "--task and --sampler: one of them at a time"),
        ([], "nothing to certify"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["nowhere.Mine"], "nowhere.Mine: ModuleNotFoundError: No module named 'nowhere'"),
        (["mine.Other"], "mine.Other: AttributeError: module 'mine' has no attribute 'Other'"),
        (["mine"], "mine is no module:name"),
        (["mine.soft"], "mine.soft is no subclass of hardmax.estimators.Estimator; of a function use --sampler"),
        (["mine.Mine", "samples=0"], "mine.Mine: ValueError: samples must be an integer of at least 1, got 0"),
        (["mine.Mine", "sample=4"], "got an unexpected keyword argument 'sample'; it takes: scale, samples"),
        (["mine.Mine", "samples"], "'samples' is no option: key=value is expected"),
        (["mine.Mine", "--config-dir", "nowhere"], "0 files below nowhere/estimator have it as their _target_"),
        (["mine.Mine", "--json", "nowhere/a.json"], "--json nowhere/a.json: there is no such folder"),
        (["mine.Mine", "--json", "."], "--json .: a file is needed"),
        (["mine.Mine", "--json", ""], "--json : a file is needed"),
        (["ending.Mine"], "ending.Mine: SystemExit: 0"),
        (["estimator=nope"], "Could not find 'estimator/nope'; there are: adaptive_imle, ar, ars,"),
        (["--sampler", "mine:soft", "tau=1"], "unexpected keyword argument 'tau'"),
        (["--sampler", "mine:torch"], "mine:torch is no function, but module"),
        (["estimator=arsmm"], "Could not find 'estimator/arsmm'"),
        (["estimator=indecater"], "Could not find 'estimator/indecater' (did you mean estimator=local_expectation?)"),
        (["estimator=arsm", "task=toy"], "task=toy: only estimator=NAME and estimator.option=value are accepted"),
        (["estimator=arsm", "estimator.limit=0"], "limit must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(certified, arguments, message):
    code, out, err = certified(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_what_ends_the_program_is_not_certified(certified, tmp_path):
    (tmp_path / "ends.py").write_text(
        "from hardmax.estimators import Reinforce\n\n\nclass Mine(Reinforce):\n"
        "    def estimate(self, logits, objective, context):\n        raise SystemExit(0)\n"
    )
    code, _, err = certified("ends.Mine")
    assert (code, err) == (1, "error: Mine() ended the program (0)\n")


def test_torch_alone_is_enough():
    """Nothing of what the harness needs is imported by the library and the command."""
    code = """
import sys, hardmax.certify
print({"scipy", "hydra", "omegaconf", "pytest", "pandas", "matplotlib", "wandb", "filelock"} & set(sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_certifying_leaves_estimator_and_random_stream_alone():
    estimator = ARSM()
    torch.manual_seed(4)
    state = torch.get_rng_state()
    call = c.certificate.calls(estimator)["finite at extreme logits"][0]
    assert call.message(estimator) == ""
    assert torch.equal(state, torch.get_rng_state())
