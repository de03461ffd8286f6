"""Random lists of overrides: each is refused in one line, or runs. A few here, thousands in tests/long."""

from helpers.overrides import outcomes


def test_a_few_lists(command, tmp_path, monkeypatch):
    found = outcomes(8, command, tmp_path, monkeypatch)
    assert min(found["ran"], found["refused"]) > 0, found
