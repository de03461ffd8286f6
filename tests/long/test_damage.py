"""Runs killed at fifty moments, files cut off at every length, and disks that are really full."""

import random
import shutil
import subprocess
import sys
import time

import pytest

from helpers.commands import ROOT, folders
from helpers.damage import TINY, cut
from helpers.processes import RUN, finish, hashes, start

KILLS, SMALL = 50, 1100
# Which of a run's files are read again, by what became of it.
FILES = {
    "interrupted": ["metrics.jsonl", "timings.jsonl", "config.yaml", "environment.json", "state.pt", "state.before.pt"],
    "failed": ["failed.txt"],
    "finished": ["metrics.jsonl", "timings.jsonl", "summary.json", "state.pt"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FILES.items() for name in names])
def test_a_file_cut_off_at_every_length(cases, kind, name, capfd):
    """Of long files, at 200 lengths."""
    sizes = []
    cases(kind, lambda folder: sizes.append((folder / name).stat().st_size))
    lengths = range(sizes[0]) if sizes[0] <= SMALL else sorted(random.Random(0).sample(range(sizes[0]), 200))
    codes = [cases(kind, cut(name, length))[0] for length in lengths]
    with capfd.disabled():
        print(
            f"\n{kind}, {name}: {len(codes)} lengths, {codes.count(0)} went on, {len(codes) - codes.count(0)} said why"
        )


def test_a_run_killed_at_fifty_moments(tmp_path):
    """Anywhere from its start to its last evaluation; every other time soon after it has gone on."""
    arguments = [*RUN, "steps=12000", "checkpoint_every=0.5", "task.bound_samples=20"]
    undisturbed, tmp_path = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir(), tmp_path.mkdir()
    assert finish(*arguments, where=undisturbed)[0] == 0
    whole = hashes(undisturbed)
    dice, kills = random.Random(0), 0
    while kills < KILLS:
        process = start(*arguments, where=tmp_path)
        if kills % 2:
            wait_for_more(process, tmp_path)
        time.sleep(dice.uniform(0, 1.5 if kills % 2 else 7))
        kills += process.poll() is None
        process.kill()
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        if list(tmp_path.rglob("summary.json")):
            assert hashes(tmp_path) == whole
            shutil.rmtree(tmp_path / "output")
    code, _, err = finish(*arguments, where=tmp_path)
    assert code == 0, err
    assert hashes(tmp_path) == whole


def wait_for_more(process, where):
    """Until a process has written rows."""

    def size():
        return sum(p.stat().st_size for p in where.rglob("metrics.jsonl"))

    before, deadline = size(), time.time() + 60
    while size() <= before and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, and what gives it another size."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a disk needs root")
    yield place, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("mode", ["disabled", "offline"])
@pytest.mark.parametrize("left", [0, 4, 12, 40])
def test_a_disk_that_fills_up(disk, tmp_path, left, mode):
    """With so many KiB left on it at first."""
    place, resize = disk
    arguments = [*TINY[:-1], f"wandb.mode={mode}", "steps=400", "log_every=1", f"output={place / 'output'}"]
    (place / "filling").write_bytes(bytes((400 - left) * 1024) if left else b"")
    if not left:
        with pytest.raises(OSError, match="No space"):
            (place / "filling").write_bytes(bytes(500 * 1024))
    code, _, err = finish(*arguments, where=tmp_path)
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) in ((1, 1), (2, 1)), err
    assert "No space left on device" in lines[0]
    resize("100m")
    code, _, err = finish(*arguments, where=tmp_path)
    assert code == 0, err
    assert finish(*arguments[:-1], where=tmp_path)[0] == 0
    one, other = (next(p.rglob("metrics.jsonl")) for p in (place / "output", tmp_path / "output"))
    assert one.read_bytes() == other.read_bytes()


def test_a_sweep_on_a_disk_that_fills_up(disk, tmp_path):
    place, resize = disk
    arguments = ["-m", *TINY, "seed=1,2,3", "steps=400", "log_every=1", f"output={place / 'output'}"]
    (place / "filling").write_bytes(bytes(300 * 1024))
    code, _, err = finish(*arguments, where=tmp_path)
    assert code in (1, 2)
    assert "Traceback" not in err
    assert "No space left on device" in err
    resize("100m")
    code, _, err = finish(*arguments, where=tmp_path)
    assert code == 0, err
    assert len(list(place.rglob("summary.json"))) == 3


@pytest.mark.parametrize("script", ["report.py", "measure.py"])
def test_a_report_on_a_disk_that_is_full(disk, tmp_path, script):
    place, resize = disk
    resize("100m")
    assert finish(*TINY, f"output={place / 'output'}", where=tmp_path)[0] == 0
    (folder,) = folders(place)
    with pytest.raises(OSError, match="No space"):
        (place / "filling").write_bytes(bytes(101 * 2**20))
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    arguments = [place / "output"] if script == "report.py" else [folder, "measure.rivals=[]", "measure.draws=4"]
    done = subprocess.run([sys.executable, ROOT / script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (1, 2), done.stderr
    *_, line = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line
    assert "Traceback" not in done.stderr
    assert {name: (folder / name).read_bytes() for name in before} == before
