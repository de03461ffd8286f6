"""Lists of overrides for the command line, right and wrong, made from the configs; and what may become of one."""

import contextlib
import importlib
import json
import math
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import get_args

import hydra.utils
import hypothesis
import pooch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hardmax.harness import options
from hardmax.paths import CONFIGS

GROUPS = ("experiment", "task", "data", "estimator", "optimizer", "schedule")
LONGEST = 700  # characters of a line that says what is wrong, beside those of the overrides
PATIENCE = 120  # seconds for one list
TINY = {"steps": 1, "batch_size": 3, "log_every": 1, "valid.every": 0, "measure.every": 0, "measure.draws": 2}
TINY |= {"measure.rival_steps": 1, "wandb.mode": "disabled", "wandb.project": "p"}
TINY_OF_TASK = {"variables": 2, "categories": 3, "bound_samples": 1, "test_samples": 1, "width": 4, "style": 2}
TINY_OF_TASK |= {"length": 3, "vocabulary": 3, "samples": 2, "experts": 2, "dimensions": 2}
# What takes as long as it is large: no huge values of these.
ENDLESS = {"steps", "threads", "measure.draws", "measure.batches", "measure.reference_draws", "measure.rival_steps"}
ENDLESS |= {"task.bound_samples", "task.test_samples", "task.layers", "task.length", "task.experts", "task.samples"}
ENDLESS |= {"estimator.samples", "estimator.noises"}

HUGE = ["1" + 30 * "0", "9223372036854775808", "18446744073709551616", "1e30", "1e300", "inf"]
WRONG = ["", "null", "nan", "-inf", "-1", "0", "-0.0", "1e-30", "5e-324", "0.5", "1.5", "2", "1e1", "true", "abc"]
WRONG += [
    "[]",
    "[1]",
    "[0]",
    "[-1]",
    "[a,b]",
    "[null]",
    "[[1]]",
    "[1.5]",
    "[true]",
    "{}",
    "{a:1}",
    "{a:{b:1}}",
    "[{a:1}]",
]
WRONG += ["''", '""', "'1'", '"two words"', "two words", "ä", "日本語", "\U0001f600", "a=b", "a:b", "a/b", "x" * 300]
WRONG += ["???", "${steps}", "${nope}", "${estimator}", "${.nope}", "${oc.env:NOPE}", "${nope:1}", "${", "$", "\\"]
WRONG += ["1,2", "a,b", "range(1,3)", "choice(1,2)", "glob(*)", "interval(0,1)", "int(2)", "str(2)", "shuffle(1,2)"]
WRONG += ["0x10", "1_0", "'", '"', "(", ")", "[", "]", "{", "}", "%", "#", "-", ".", "..", "~", "\t", " ", "\n", "a\nb"]
WRONG += [
    "/proc/nope",
    "/dev/null",
    "None",
    "all",
    "True",
    "1 2",
    "[1,",
    "{a",
    "f(x)",
    "!!python/none",
    "&a",
    "*a",
    "@",
    "`",
]


class Hung(BaseException):
    """The command line gives no answer."""


@cache
def choices(group):
    return sorted(p.relative_to(CONFIGS / group).with_suffix("").as_posix() for p in (CONFIGS / group).rglob("*.yaml"))


@cache
def content(group, choice):
    known = choice in choices(group)
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{choice}.yaml")) if known else {}


@cache
def settings(group, choice):
    """Options of a choice, and their defaults."""
    found = content(group, choice)
    return {f"{group}.{key}": value for key, value in found.items() if key not in ("defaults", "_target_", "data")}


@cache
def at_the_top(schema=options.Options, prefix=""):
    """Options at the top level, and their defaults; of those that have a list of values, the list."""
    found = {}
    for f in fields(schema):
        if is_dataclass(f.type):
            found |= at_the_top(f.type, f"{prefix}{f.name}.")
        elif "help" in f.metadata:
            kinds = [k for k in (f.type, *get_args(f.type)) if isinstance(k, type) and issubclass(k, Enum)]
            found[prefix + f.name] = [*kinds[0].__members__] if kinds else f.default_factory()
    return found


@cache
def words(group, choice):
    """Words that the documentation of a choice sets in quotes: among them are the values of its options."""
    try:
        target = hydra.utils.get_object(content(group, choice)["_target_"])
    except Exception:
        return ["abc"]
    classes = getattr(target, "__mro__", ()) or (importlib.import_module("hardmax.tasks.data").Images,)
    documented = " ".join(c.__doc__ or "" for c in classes if c.__module__.split(".")[0] in ("hardmax",))
    return sorted(set(re.findall(r"``(\w+)``", documented))) or ["abc"]


def as_text(value):
    return json.dumps(value).replace('"', "").replace(" ", "")


def right(default, known):
    """Values of the kind that an option's default is, as text."""
    match default:
        case bool():
            return st.sampled_from(["true", "false"])
        case int():
            return st.sampled_from(["1", "2", "3", "4", "5"])
        case float():
            return st.sampled_from([as_text(default), "0.1", "0.5", "0.9", "1", "2", "1e-3", "0"])
        case list():
            return st.sampled_from([as_text(default), "[]", "[3]", "[2,3]", *known])
        case None:
            return st.sampled_from(["null", "1", "2", "text"])
    return st.just(as_text(default)) | st.sampled_from(known)


@st.composite
def value(draw, key, default, known):
    if draw(st.integers(0, 9)) < 7:
        return draw(right(default, known))
    return draw(st.sampled_from(WRONG if key in ENDLESS else WRONG + HUGE))


@st.composite
def mangled(draw, key):
    """A key with a mistake in it, or of another meaning."""
    place = draw(st.integers(0, len(key) - 1))
    kind = draw(
        st.sampled_from(["+", "++", "~", "less", "more", "swap", ".x", "upper", "deep", "none", "@", "part", "odd"])
    )
    match kind:
        case "+" | "++" | "~":
            return kind + key
        case "less":
            return key[:place] + key[place + 1 :]
        case "more":
            return key[:place] + draw(st.sampled_from("abcxyz_.é ")) + key[place:]
        case "swap":
            return key[:place] + key[place:][1:2] + key[place:][:1] + key[place + 2 :]
        case ".x":
            return key + ".x"
        case "upper":
            return key.upper()
        case "deep":
            return draw(st.sampled_from(["a.b.c", "+a.b.c", "nope", "+nope", "estimator", "task", "measure", "wandb"]))
        case "@":
            return key + "@nope"
        case "part":
            return draw(
                st.sampled_from(["estimator._target_", "task._target_", "optimizer._target_", "task.data", "data"])
            )
        case "odd":
            return draw(
                st.sampled_from(["", " ", "=", "ä", "~nope", "~task", "~estimator.nope", "/task", "task/x", "[a]"])
            )
    return key


@st.composite
def overrides(draw):
    """Overrides of a run, or with ``-m`` of a sweep."""
    many = draw(st.integers(0, 7)) == 0
    chosen, found = {"task": "dvae", "estimator": "gumbel_softmax", "optimizer": "adam", "schedule": "constant"}, []
    for group in GROUPS:
        if draw(st.integers(0, 9)) < {"experiment": not many, "data": 1, "task": 6, "estimator": 8}.get(group, 3):
            known = choices(group)
            name = draw(st.sampled_from(known))
            if draw(st.integers(0, 24)) == 0:
                name = draw(st.sampled_from([name[:-1], name + "x", *WRONG]))
            elif draw(st.integers(0, 24)) == 0:
                name = draw(st.sampled_from(choices(draw(st.sampled_from(GROUPS)))))
            found.append(f"{group}={name}")
            if group == "experiment":
                for entry in content(group, name).get("defaults", []):
                    ((other, choice),) = entry.items()
                    chosen[other.removeprefix("override /")] = choice
                found += ["budget=small"] * draw(st.booleans())
            else:
                chosen[group] = name
    of_groups = {key: (d, words(g, c)) for g, c in chosen.items() for key, d in settings(g, c).items()}
    top = {key: (d, d if isinstance(d, list) and d else choices("estimator")) for key, d in at_the_top().items()}
    tiny = dict(TINY)
    for key, (default, _) in of_groups.items():
        name = key.removeprefix("task.")
        if (
            key.startswith("task.")
            and name in TINY_OF_TASK
            and not (default == 10 and name == "categories" and len(of_groups) and "task.labels" in of_groups)
        ):
            tiny[key] = TINY_OF_TASK[name]
        elif key.startswith("task.") and isinstance(default, list) and default:
            tiny[key] = "[4]"
    keys = [*of_groups] * 3 + [*top] if of_groups else [*top]
    for _ in range(draw(st.integers(0, 4))):
        key = draw(st.sampled_from(keys))
        default, known = (of_groups | top)[key]
        text = draw(value(key, default, known))
        if key == "wandb.mode" and text == "online":
            text = "offline"
        if draw(st.integers(0, 11)) == 0:
            key = draw(mangled(key))
        found.append(key if draw(st.integers(0, 39)) == 0 else f"{key}={text}")
    if many and draw(st.booleans()):
        found.append(
            draw(st.sampled_from(["seed=1,2", "seed=range(2)", "estimator=softmax,arsm", "optimizer.lr=0.1,1"]))
        )
    return ["-m"] * many + [f"{key}={text}" for key, text in tiny.items()] + found


# ---------------------------------------------------------------- what becomes of them


def without_network(monkeypatch, folder):
    """No data file is there, and no mirror answers."""

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("HARDMAX_DATA", raising=False)


@contextlib.contextmanager
def limited(seconds):
    def give_up(*_):
        raise Hung(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(command, arguments):
    """``ran`` or ``refused``, of a list that is answered as it should be.

    Raises:
        AssertionError: If it is not.
    """
    where = Path(tempfile.mkdtemp())
    try:
        with limited(PATIENCE):
            code, out, err = command(*arguments, where=where)
        rows = [json.loads(line) for path in where.rglob("metrics.jsonl") for line in path.read_text().splitlines()]
    finally:
        os.chdir(CONFIGS)
        shutil.rmtree(where)
    assert code in (0, 1, 2), code
    assert "Traceback" not in out + err
    lines = err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if code:
        many = "-m" in arguments
        assert len(errors) == 1 or (many and errors), f"{len(errors)} lines of error:\n{err}"
        for line in errors:
            assert len(line) <= LONGEST + many * len(" ".join(arguments)), f"{len(line)} characters: {line}"
            assert "fault of the program" not in line, line
            assert not re.search(r"(error|failed): \w+(Error|Exception): ", line), line
        return "refused"
    assert not errors
    assert any("train/loss" in row for row in rows), "no row"
    for row in rows:
        for key, number in row.items():
            assert number is None or math.isfinite(number), f"{key}={number}"
            assert number is not None or key.startswith("gradient/"), f"{key} is null"
    return "ran"


NO_CHECKS = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": [*HealthCheck]}


def outcomes(examples, command, folder, monkeypatch):
    """How many of so many lists ran, and were refused."""
    without_network(monkeypatch, folder)
    found = Counter()

    @hypothesis.settings(max_examples=examples, **NO_CHECKS)
    @given(overrides())
    def count(arguments):
        found[outcome(command, arguments)] += 1

    count()
    return found
