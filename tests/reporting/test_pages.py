"""No page has a figure or a picture without a run that anybody can look up, or a computation that makes it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import hardmax
from hardmax.reporting.archives import read_archive
from helpers.commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADVICE = ROOT / "docs/advice"
COMPUTED = {"bias_variance.png": "bias"}  # pictures of what needs no runs, and the target that draws them
ARCHIVES = {  # of runs, by the beginning of the names of the pictures that are drawn from them
    "results/": "docs/results/runs",
    "leaderboard_": "docs/leaderboard",
    "report.png": "docs/demo",
    "generation.png": "docs/demo",
    "cartpole.png": "docs/comparisons",
}


def pictures_of(page):
    """Those that a page shows, below docs; a drawing of the tutorial is made as the site is built."""
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", page.read_text("utf-8")):
        path = (page.parent / link).resolve()
        assert path.is_file(), f"{page}: {link}"
        yield path.relative_to(ROOT / "docs").as_posix()


def test_every_picture_is_drawn_from_archived_runs_or_computed():
    shown = {name for page in PAGES for name in pictures_of(page)}
    make = (ROOT / "Makefile").read_text("utf-8")
    for name in shown:
        if name in COMPUTED:
            assert f"\n{COMPUTED[name]}: " in make
        else:
            (archive,) = [archive for start, archive in ARCHIVES.items() if name.startswith(start)]
            runs = [run for path in (ROOT / archive).glob("*.jsonl.xz") for run in read_archive(path)]
            assert runs, name
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.png")}
    assert there == shown, "pictures that no page shows"


def test_pictures_of_a_task_have_runs_of_it():
    tasks = {run["key"].split("/")[0] for path in (ROOT / "docs/demo").glob("*.jsonl.xz") for run in read_archive(path)}
    assert tasks == {"dvae", "generation"}


def test_the_page_of_the_pole_is_made_from_its_archive(tmp_path):
    made = [tmp_path / "cartpole.md", tmp_path / "cartpole.png"]
    command = [sys.executable, "docs/scripts/episodes.py", "docs/comparisons/cartpole.jsonl.xz", *map(str, made)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert made[0].read_bytes() == (ROOT / "docs/cartpole.md").read_bytes(), "make pictures"


def test_the_leaderboard_is_made_from_the_archive_byte_for_byte(tmp_path, reported):
    code, _, err = reported(str(ROOT / "docs/leaderboard"), "--leaderboard", str(tmp_path / "leaderboard.md"))
    assert code == 0, err
    page = ROOT / "docs/leaderboard.md"
    assert (tmp_path / "leaderboard.md").read_bytes() == page.read_bytes(), "report.py docs/leaderboard --leaderboard"
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {path.name for path in (ROOT / "docs").glob("leaderboard_*.png")}


def test_the_table_of_gradients_is_made_from_the_archive(tmp_path, reported):
    code, _, err = reported(str(ROOT / "docs/comparisons"), "--to", str(tmp_path))
    assert code == 0, err
    made = shutil.copy(ROOT / "docs/vq.md", tmp_path / "page.md")
    subprocess.run([sys.executable, ROOT / "docs/scripts/fill_table.py", made, tmp_path / "vq.md"], check=True)
    assert made.read_bytes() == (ROOT / "docs/vq.md").read_bytes(), "make comparisons"


@pytest.mark.long
@pytest.mark.parametrize("problem", sorted(path.name.split(".")[0] for path in ADVICE.glob("*[!d].csv.xz")))
def test_tables_of_advice_are_made_from_what_was_measured(tmp_path, reported, problem):
    archive = ROOT / f"docs/leaderboard/leaderboard_{problem}.jsonl.xz"
    code, _, err = reported(str(archive), "--tune", "--to", str(tmp_path))
    assert code == 0, err
    page = (ROOT / "docs/tuning.md").read_text("utf-8")
    for kind, benchmark, name in (("advice", "advice", problem), ("named", "advised", f"{problem}_named")):
        command = [sys.executable, "-m", f"benchmarks.{benchmark}", tmp_path / "tuned.csv", ADVICE / f"{name}.csv.xz"]
        made = subprocess.run([*command, "--to", tmp_path], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        said = page.split(f"<!-- {kind}: {problem} -->")[1].split(f"<!-- end of {kind}: {problem} -->")[0]
        assert said.strip() == made.strip()


@pytest.mark.parametrize("estimator", ["st_gumbel_softmax", "reinmax"])
def test_figures_of_parses_are_those_of_the_archive(estimator):
    runs = hardmax.runs(ROOT / "docs/comparisons/listops.jsonl.xz")
    runs = runs[runs.estimator == estimator]
    assert len(runs) == 3
    for name in ("accuracy", "heads"):
        found = runs[f"test/{name}"]
        said = f"{found.mean():.3f} ± {found.sem():.3f}"
        assert said in (ROOT / "docs/tasks.md").read_text("utf-8")


def test_figures_of_the_answer_are_those_of_the_leaderboard():
    answer = (ROOT / "README.md").read_text("utf-8").split("<!-- answer -->")[1].split("<!-- end of answer -->")[0]
    lines = (ROOT / "docs/leaderboard.md").read_text("utf-8").splitlines()
    measured = {}
    for cells in (line.strip("| ").split(" | ") for line in lines if line.startswith("| ")):
        if found := re.match(r"\**(−?[\d.]+) ±", cells[4]):
            measured.setdefault(cells[0], []).append(round(float(found[1].replace("−", "-")), 1))
    said = re.findall(r"`(\w+)`[^`]*?\((−?[\d.]+)\)", answer)
    assert len(said) >= 5
    for name, figure in said:
        assert float(figure.replace("−", "-")) in measured[name], f"{name} {figure}: {measured[name]}"
