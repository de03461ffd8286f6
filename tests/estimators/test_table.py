"""The table of estimators in docs/estimators.md."""

import pytest

from hardmax.estimators import CARMS, Softmax
from hardmax.estimators.__main__ import FOLDER, estimators_table, first_reference, rewritten, typeset
from helpers.commands import ROOT

PAGE = ROOT / "docs" / "estimators.md"


def test_the_page_has_the_table_of_what_the_classes_say():
    text = PAGE.read_text(encoding="utf-8")
    assert rewritten(text) == text, "the table is stale: make table"
    assert all(f"\n| `{path.stem}` | " in text for path in FOLDER.glob("*.yaml"))


def test_nothing_but_the_table_is_rewritten():
    stale = "before\n<!-- estimators -->\nold\n<!-- end of estimators -->\nafter | old\n"
    assert rewritten(stale) == stale.replace("old\n<", f"\n{estimators_table()}\n<")
    for broken in ("no comments", stale.replace("end of", ""), stale + stale):
        with pytest.raises(ValueError, match="must be there once"):
            rewritten(broken)


def test_papers_come_from_the_first_reference():
    assert first_reference(CARMS()) == ("[Dimitriev and Zhou 2021](https://arxiv.org/abs/2110.14002)", "2021")
    assert first_reference(Softmax()) == ("", "")

    class WithoutLink(Softmax):
        """One.

        References:
            | An older paper (One, 1901)
            | A newer paper (Another et al., 2001)
            | https://example.org/newer
        """

    assert first_reference(WithoutLink()) == ("", ""), "a link belongs to the reference before it"


@pytest.mark.parametrize(
    ("python", "written"),
    [
        ("C * (C - 1) // 2 + 1", "C(C-1)/2 + 1"),
        ("C ** K", "C^K"),
        ("K * (C - 1) + 1", "K(C-1) + 1"),
        ("2 * S", "2·S"),
        ("S", "S"),
    ],
)
def test_expressions_are_readable(python, written):
    assert typeset(python) == written
