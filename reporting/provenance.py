r"""Where figures come from: settings, code, versions, machines, and the commands that make them again."""

import json
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from hardmax.harness.shared import NOT_RESULTS

from .groups import Group
from .runs import Run

SAID_ELSEWHERE = ("seed", "task", "estimator")


@dataclass(frozen=True)
class Made:
    r"""Under what circumstances some of the runs were made.

    Attributes:
        facts: Such as the commit and versions, by name.
        labels: Of the groups that have such runs.
        runs: Their number.
    """

    facts: dict[str, str]
    labels: list[str]
    runs: int


@dataclass(frozen=True)
class Provenance:
    r"""Where the figures on one task come from.

    Attributes:
        shared: Settings that all runs share.
        different: Settings in which groups differ; of each group, by key.
        made: Distinct circumstances, the most frequent first.
        code: Files of the code that makes results that are not the same behind all runs.
        commands: As they were given, and how many runs are theirs.
    """

    shared: dict[str, str | None]
    different: list[tuple[Group, dict[str, str]]]
    made: list[Made]
    code: list[str]
    commands: list[tuple[str, int]]


def provenance(groups: list[Group]) -> Provenance:
    runs = [run for group in groups for run in group.runs]
    shared, different = settings(groups, runs)
    commands: dict[str, int] = defaultdict(int)
    for run in runs:
        commands[command(run)] += 1
    commands.pop("", None)
    return Provenance(shared, different, circumstances(groups), changed_code(runs), list(commands.items()))


def settings(groups: list[Group], runs: list[Run]) -> tuple[dict[str, str | None], list[tuple[Group, dict[str, str]]]]:
    r"""Settings that all runs share, and those in which they differ, of each group."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    keys = [key for key in keys if key not in SAID_ELSEWHERE and key.split(".")[0] not in NOT_RESULTS]
    values = {key: list(dict.fromkeys(run.config.get(key) for run in runs)) for key in keys}
    shared = {key: found[0] for key, found in values.items() if len(found) == 1}
    different = []
    for group in groups:
        own = {key: dict.fromkeys(run.config[key] for run in group.runs if key in run.config) for key in keys}
        different.append((group, {key: ", ".join(v) for key, v in own.items() if v and key not in shared}))
    return shared, different


def command(run: Run) -> str:
    r"""The command line behind a run, or nothing where it is not known."""
    words = run.environment.get("command")
    if not isinstance(words, list) or not words:
        return ""
    program, *arguments = map(str, words)
    installed = program.startswith("hardmax ")  # as in "hardmax run"
    return shlex.join([*(program.split() if installed else ["python", Path(program).name]), *arguments])


def commit_versions_hardware(run: Run) -> dict[str, str]:
    r"""Commit, versions and hardware, as far as they are known."""
    about = run.environment
    versions = about.get("versions")
    found = {"commit": str(about.get("commit") or "unknown")}
    changed = about.get("changed_files")
    if isinstance(changed, list) and changed:
        found["changed since"] = ", ".join(str(line).strip() for line in changed)
    found["Python"] = str(about.get("python", "unknown"))
    if isinstance(versions, dict):
        found |= {str(name): str(version) for name, version in versions.items()}
    return found | {name: str(about.get(name, "unknown")) for name in ("platform", "device")}


def circumstances(groups: list[Group]) -> list[Made]:
    by_facts = defaultdict(list)
    for group in groups:
        for run in group.runs:
            by_facts[json.dumps(commit_versions_hardware(run))].append(group.label)
    made = [Made(json.loads(text), list(dict.fromkeys(labels)), len(labels)) for text, labels in by_facts.items()]
    return sorted(made, key=lambda each: -each.runs)


def changed_code(runs: list[Run]) -> list[str]:
    r"""Files of code and of data whose hash is not the same behind all runs that kept one."""
    return sorted({*changed_files(runs, "code"), *changed_files(runs, "data")})


def changed_files(runs: list[Run], part: str) -> list[str]:
    r"""Files of one part, ``code`` or ``data``, whose hash is not the same behind all runs that kept one."""
    hashes = defaultdict(set)
    for files in (run.environment.get(part) for run in runs):
        for name, value in files.items() if isinstance(files, dict) else ():
            hashes[name].add(str(value))
    return sorted(name for name, found in hashes.items() if len(found) > 1)
