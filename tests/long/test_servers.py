"""Servers of Weights & Biases that are away, slow or broken: a run loses seconds, and nothing else."""

import time

import pytest

from helpers.uploads import once_rows_come, outcome

NEVER = 10_000  # seconds


def closes(path=None):
    raise ConnectionError


def unless_asked_for_its_page(what):
    return lambda path: None if path == "/" else what(path)


AT_ONCE = {
    "403": lambda path: 403,
    "500": lambda path: 500,
    "slow": lambda path: time.sleep(30),
    "silent": lambda path: time.sleep(NEVER),
    "silent but for its page": unless_asked_for_its_page(lambda path: time.sleep(NEVER)),
    "closes": closes,
    "closes but for its page": unless_asked_for_its_page(closes),
    "not W&B": unless_asked_for_its_page(lambda path: 404),
}
LATER = {"500": 500, "silent": lambda: time.sleep(NEVER), "slow": lambda: time.sleep(30), "closes": closes}


@pytest.mark.parametrize("case", [*AT_ONCE, "refuses"])
def test_a_server_that_is_no_good_from_the_start(tmp_path, surroundings, case):
    done, more = outcome(tmp_path, surroundings, AT_ONCE.get(case), refusing=case == "refuses")
    assert "W&B          offline (upload: " in done.stdout
    assert more < 60


@pytest.mark.parametrize("case", LATER)
def test_a_server_that_is_lost_in_the_middle(tmp_path, surroundings, case):
    done, more = outcome(tmp_path, surroundings, once_rows_come(LATER[case]))
    assert "W&B          incomplete (upload: " in done.stdout
    assert done.stderr.startswith("W&B stopped (TimeoutError: ")
    assert more < 60
