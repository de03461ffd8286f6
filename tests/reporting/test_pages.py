"""No page has a figure or a picture without a run that anybody can look up, or a computation that makes it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import hardmax
from hardmax.paths import CONFIGS
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


def test_every_estimator_is_in_one_table_of_the_choice_and_those_of_black_boxes_take_no_derivative():
    text = (ROOT / "docs/choose.md").read_text("utf-8")
    tables = dict(re.findall(r"<!-- table of ([\w ]+) -->\n(.*?)<!-- end of table", text, re.DOTALL))
    listed = {
        kind: re.findall(r"^\| \[`(\w+)`\]\(estimators\.md\) \|", rows, re.MULTILINE) for kind, rows in tables.items()
    }
    known = {path.stem: instantiate(OmegaConf.load(path)) for path in (CONFIGS / "estimator").glob("*.yaml")}
    assert sorted(name for names in listed.values() for name in names) == sorted(known)
    for kind in ("black boxes", "biased black boxes"):
        assert not [name for name in listed[kind] if known[name].differentiates_objective]


def test_biased_estimators_that_add_digits_are_those_named():
    lines = (ROOT / "docs/matrix.md").read_text("utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    trained = {name.strip("`") for name, addition, *_ in (row for row in rows if len(row) > 2) if addition == "✓"}
    known = {name: instantiate(OmegaConf.load(CONFIGS / f"estimator/{name}.yaml")) for name in trained}
    biased = sorted(name for name, made in known.items() if not made.unbiased and made.target != "bound")
    said = " ".join((ROOT / "docs/tasks.md").read_text("utf-8").split())
    assert f"leaves two biased ones, {' and '.join(f'`{name}`' for name in biased)}" in said


def test_figures_of_the_answer_are_those_of_the_leaderboard():
    """With and without a derivative, at equal steps, and how far the best of both are apart at equal evaluations."""
    answer = (ROOT / "README.md").read_text("utf-8").split("<!-- answer -->")[1].split("<!-- end of answer -->")[0]
    at_steps, apart = {}, {}
    for task, board in boards_of_leaderboard().items():
        for name, (figure, _) in board.items():
            at_steps.setdefault(name, {})[task] = f"{figure:.1f}"
        at_evaluations = {name: evaluated for name, (_, evaluated) in board.items()}
        best = min(at_evaluations.values(), key=abs)
        apart[task] = [abs(at_evaluations[name] - best) for name in ("carms", "reinforce") if name in board]
    said = re.findall(r"`(\w+)`[^`(]*\((−?[\d.]+)(?:; with 200 binary (?:ones|choices)\s+(−?[\d.]+))?\)", answer)
    assert len(said) >= 9
    for name, figure, with_binary in said:
        assert figure.replace("−", "-") in at_steps[name].values(), f"{name} {figure}: {at_steps[name]}"
        if with_binary:
            assert with_binary.replace("−", "-") == at_steps[name]["dvae, variables=200, categories=2"], name
    (least, most) = re.findall(r"they are ([\d.]+) nats\s+\(two layers\) to ([\d.]+) \(200 binary choices\)", answer)[0]
    assert least == f"{min(map(min, apart.values())):.1f}" == f"{min(apart['structured']):.1f}"
    assert most == f"{max(map(max, apart.values())):.1f}" == f"{max(apart['dvae, variables=200, categories=2']):.1f}"


def boards_of_leaderboard():
    """Figures of each estimator at equal steps and at equal evaluations, by problem."""
    found = {}
    for section in (ROOT / "docs/leaderboard.md").read_text("utf-8").split("\n## ")[1:]:
        for line in section.splitlines():
            cells = line.strip("| ").replace("−", "-").split(" | ")
            if line.startswith("| ") and (figures := re.findall(r"(-?[\d.]+) ±", " | ".join(cells[4:6]))):
                found.setdefault(section.splitlines()[0], {})[cells[0]] = tuple(map(float, figures))
    return found
