"""RESULTS.md and its pictures are what the archive of runs gives, whoever makes them again."""

import re

import numpy as np
import pytest
from PIL import Image

from hardmax.reporting import reproduction
from hardmax.reporting.archives import read_archive
from helpers.commands import ROOT

PICTURES = ROOT / "docs/results"
ARCHIVES = PICTURES / "runs"
MOST_DIFFERENT = 8  # grey levels, on average over a picture: other fonts and processors draw a little otherwise


def grey(path):
    """A picture as grey levels, ``[height, width]``."""
    return np.asarray(Image.open(path).convert("L"), float)


def test_the_page_is_made_from_the_archive_byte_for_byte(tmp_path, reported, monkeypatch):
    """Without its pictures, whose drawing takes longest."""
    monkeypatch.setattr(reproduction, "as_png", lambda spec: b"")
    made_again(tmp_path, reported)


def made_again(tmp_path, reported):
    """Writes the page anew, which is to be as it is; the names of its pictures, as they are to be."""
    code, _, err = reported(str(ARCHIVES), "--results", str(tmp_path / "RESULTS.md"))
    assert code == 0, err
    assert (tmp_path / "RESULTS.md").read_bytes() == (ROOT / "RESULTS.md").read_bytes(), "make results"
    made = {path.name for path in (tmp_path / "docs/results").iterdir()}
    assert made == {path.name for path in PICTURES.glob("*.png")}
    return made


@pytest.mark.long
def test_its_pictures_are_those_that_are_drawn(tmp_path, reported):
    for name in made_again(tmp_path, reported):
        new, old = grey(tmp_path / "docs/results" / name), grey(PICTURES / name)
        height, width = np.minimum(new.shape, old.shape)
        assert np.abs(np.subtract(new.shape, old.shape)).max() <= 0.02 * max(old.shape), name
        assert np.abs(new[:height, :width] - old[:height, :width]).mean() < MOST_DIFFERENT, name


def test_every_figure_on_the_page_names_runs_of_the_archive():
    text = (ROOT / "RESULTS.md").read_text()
    named = set(re.findall(r"\b\d+-[0-9a-f]{8}\b", text))
    archived = {entry["key"].rpartition("/")[2] for path in ARCHIVES.glob("*.jsonl.xz") for entry in read_archive(path)}
    assert named
    assert named <= archived
    for line in text.splitlines():
        if "**agrees**" in line or "**differs**" in line:
            assert re.search(r"\b\d+-[0-9a-f]{8}\b", line), line


def test_the_archive_stays_small():
    assert sum(path.stat().st_size for path in ARCHIVES.iterdir()) < 20e6
