"""Random lists of overrides: each is refused in one line, or runs. A few here, thousands in tests/long."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from overrides import outcome, overrides, without_network
from test_runs import command, errors  # noqa: F401

NO_CHECKS = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": [*HealthCheck]}


def outcomes(examples, command, folder, monkeypatch):  # noqa: F811
    """How many of so many lists ran, and were refused."""
    without_network(monkeypatch, folder)
    found = Counter()

    @settings(max_examples=examples, **NO_CHECKS)
    @given(overrides())
    def count(arguments):
        found[outcome(command, arguments)] += 1

    count()
    return found


def test_a_few_lists(command, tmp_path, monkeypatch):  # noqa: F811
    found = outcomes(60, command, tmp_path, monkeypatch)
    assert min(found["ran"], found["refused"]) > 10, found
