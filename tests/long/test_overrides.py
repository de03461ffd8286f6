"""Thousands of random lists of overrides: each is refused in one line, or runs."""

import os

from helpers.overrides import outcomes

LISTS = int(os.environ.get("LISTS", 3000))


def test_every_list_is_answered(command, tmp_path, monkeypatch):
    found = outcomes(LISTS, command, tmp_path, monkeypatch)
    print(f"{found['ran']} ran, {found['refused']} were refused")
    assert min(found["ran"], found["refused"]) > LISTS / 5, found
