"""The page of known mistakes says what its script measures."""

import mistakes
import pytest

PAGE = mistakes.PAGE.read_text()


@pytest.mark.parametrize("mistake", mistakes.MISTAKES)
def test_the_page_has_the_figures_of_the_script(mistake, monkeypatch):
    monkeypatch.setattr(mistakes, "DRAWS", 200_000)
    where, measure = mistakes.MISTAKES[mistake]
    found, _, by = measure()
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {mistake} |")]
    assert where in line
    stated = line.split(" | ")[2]
    percent = lambda text: float(text.split("%")[0])
    assert percent(found) == pytest.approx(percent(stated), abs=1e-9 if by == "enumeration" else 1.0)
