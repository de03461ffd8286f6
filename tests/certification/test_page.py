"""The page of certificates has a line for every estimator, with the figures that are measured."""

import pytest

from benchmarks import certificates
from hardmax import certification as c
from hardmax.paths import ROOT
from helpers.cases import build

PAGE = (ROOT / "docs" / "certificates.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].removeprefix("| "): cells for cells in (line.split(" | ") for line in PAGE.splitlines()) if len(cells) == 9
}


def test_every_estimator_and_library_has_a_line():
    own = {f"`{argument.partition('=')[2]}`" for argument in certificates.OWN}
    assert set(ROWS) == own | set(certificates.OTHERS) | {"what", "---"}
    assert all(row[-1].startswith("yes") for name, row in ROWS.items() if name in own)


@pytest.mark.parametrize("name", ["reinforce", "straight_through", "darn", "double_cv", "exact", "reinmax", "vimco"])
def test_a_line_has_the_figures_that_are_measured(name):
    """Of estimators whose draws are enumerated, so that figures are the same whatever the machine."""
    estimator = build((name, {}))
    found = c.Certificate(name, {"unbiased": estimator.unbiased}, estimator.target)
    found.measurements = [c.measure_on(build((name, {})), problem) for problem in c.PROBLEMS]
    assert all(m.draws is None for m in found.measurements)
    assert ROWS[f"`{name}`"][1:8] == certificates.row(name, found.to_dict())[1:8]
