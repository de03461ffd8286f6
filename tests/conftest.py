import contextlib
import functools
import gc
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

import measure
import report
from hardmax.harness import app, tracking
from hardmax.harness.state import State
from hardmax.reporting.runs import Run, read
from helpers.commands import folders
from helpers.damage import DIES_AFTER, LAST_SAVED, TINY
from helpers.uploads import KEY, OTHER
from helpers.wandb_server import Server

HERE = Path(__file__).parent
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)  # more of them, beside a second process of tests, take a hundred times as long
os.environ["WANDB_MODE"] = "offline"
ConfigStore.__deepcopy__ = lambda store, memo: store  # else each config that is composed copies all that can be chosen
if not torch.cuda.is_available():  # else each torch.manual_seed keeps three tracebacks for a device that there is not
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = torch.mtia.manual_seed_all = lambda seed: None


def pytest_addoption(parser):
    parser.addoption("--seeds", type=int, default=1, help="under how many seeds to run every test, instead of seed 0")


def pytest_generate_tests(metafunc):
    if (seeds := metafunc.config.getoption("seeds")) > 1:
        metafunc.parametrize("seeded", range(seeds), indirect=True)


def pytest_collection_modifyitems(items):
    """What starts processes, and takes longest, comes first: no worker is left with it when the others have ended."""
    items.sort(key=lambda item: item.path.parent != HERE)


def pytest_collection_finish():
    """What is imported by now stays, and need not be searched for garbage; nor is there much to find in the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def seeded(request):
    """Every test begins with the same random numbers, whatever ran before it in its process."""
    torch.manual_seed(getattr(request, "param", 0))


@pytest.fixture(scope="session")
def errors(tmp_path_factory):
    """A file for standard error: worker processes of a sweep, which outlive a test, write to it as well."""
    with (tmp_path_factory.mktemp("errors") / "stderr").open("a+") as file:
        yield file


@pytest.fixture
def command(tmp_path, monkeypatch, capfd, errors):
    """Runs the command line in this process; gives exit code, output and errors."""

    def run(*arguments, where=tmp_path):
        GlobalHydra.instance().clear()
        monkeypatch.chdir(where)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # is set by the program; here, undone afterwards
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        before, kept = errors.seek(0, os.SEEK_END), os.dup(2)
        os.dup2(errors.fileno(), 2)
        try:
            with contextlib.redirect_stderr(errors):
                app.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        errors.seek(before)
        return code, capfd.readouterr().out, errors.read()

    return run


@pytest.fixture
def script(tmp_path, monkeypatch, capfd):
    """Runs a script in this process, given its module; gives exit code, output and errors."""

    def run(module, *arguments):
        GlobalHydra.instance().clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # is set by the program; here, undone afterwards
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        try:
            module.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def measured(script):
    """Runs measure.py in this process; gives exit code, output and errors."""
    return functools.partial(script, measure)


@pytest.fixture
def reported(script):
    """Runs report.py in this process; gives exit code, output and errors."""
    return functools.partial(script, report)


@pytest.fixture
def surroundings(tmp_path):
    """The environment of a user who is logged in, by variable and by file, to a server at an address."""
    home = tmp_path / "home"
    home.mkdir()

    def to(address):
        (home / ".netrc").write_text(f"machine {address.partition('//')[2]}\n  login user\n  password {OTHER}\n")
        (home / ".netrc").chmod(0o600)
        found = {k: v for k, v in os.environ.items() if k not in ("WANDB_MODE", "WANDB_ERROR_REPORTING")}
        return found | {"HOME": str(home), "WANDB_BASE_URL": address, "WANDB_API_KEY": KEY}

    return to


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A healthy server that this process is logged in to."""
    import wandb

    wandb.teardown()  # what it knows of the environment
    with Server() as found:
        (tmp_path / "home").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("WANDB_BASE_URL", found.address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield found
        wandb.teardown()


@pytest.fixture(scope="session")
def undamaged(tmp_path_factory):
    """Where the runs are whose copies ``cases`` damages: each is made once."""
    return tmp_path_factory.mktemp("undamaged")


@pytest.fixture
def cases(command, undamaged, tmp_path, monkeypatch):
    """Runs the same command on a damaged copy of a run that ``finished``, ``failed`` or was ``interrupted``."""
    log, save, dying = tracking.Tracker.log, State.save, []

    def dies(tracker, step, *rest):
        log(tracker, step, *rest)
        if step == DIES_AFTER:
            raise dying.pop()

    def make(kind):
        with monkeypatch.context() as broken:
            broken.setattr(tracking.Tracker, "log", dies)
            broken.setattr(State, "save", lambda state, *to: save(state, *to) if state.step <= LAST_SAVED else None)
            if kind == "failed":
                dying.append(ArithmeticError("a cost"))
                assert command(*TINY, f"output={undamaged / kind}")[0] == 1
            else:
                dying.append(KeyboardInterrupt())
                assert command(*TINY, f"output={undamaged / kind}")[0] == 130

    if not (undamaged / "finished").exists():
        assert command(*TINY, f"output={undamaged / 'finished'}")[0] == 0
    rows = (folders(undamaged / "finished")[0] / "metrics.jsonl").read_bytes()

    def again(kind, damage):
        """The exit code, and what was said, of the same command on a copy of the run that is damaged first."""
        if not (undamaged / kind).exists():
            make(kind)
        output = tmp_path / "damaged"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(undamaged / kind, output, symlinks=True)
        (folder,) = folders(output)
        damage(folder)
        before = {p.name: p.read_bytes() for p in folder.glob("*.jsonl")}
        assert isinstance(read(folder), Run | str)
        code, out, err = command(*TINY, f"output={output}", *["retry=true"] * (kind == "failed"))
        said = [line for line in err.splitlines() if line and not line.startswith(("\r", "  0%", "100%"))]
        if code:
            assert code in (1, 2)
            assert len(said) == 1, err
            assert said[0].startswith("error: ")
            assert {p.name: p.read_bytes() for p in folder.glob("*.jsonl")} == before, "rows are lost"
        else:
            assert (folder / "metrics.jsonl").read_bytes() == rows
            assert (folder / "summary.json").is_file()
        return code, out, err

    return again
