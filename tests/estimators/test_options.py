"""Options of every estimator: defaults, what is refused, and schedules that stand still."""

import inspect
import math

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from hardmax.estimators import GumbelSoftmax
from hardmax.paths import CONFIGS

CONFIGURED = {path.stem: OmegaConf.to_object(OmegaConf.load(path)) for path in (CONFIGS / "estimator").glob("*.yaml")}
BAD = {
    bool: [2, "yes", None],
    int: [0, -1, 2.5, "3", True, None],
    float: [-1.0, float("nan"), float("inf"), "warm", True, None],
    str: ["nope", 1, None],
    list: [[0], [2.5], 3, "45", None],
    type(None): [0, -1, 2.5, "3", True],  # of what may be an integer
}
OPTIONS = [
    (name, option, value)
    for name, config in sorted(CONFIGURED.items())
    for option, default in config.items()
    if option != "_target_"
    for value in BAD[type(default)]
    if option != "scale" or not isinstance(value, int | float) or not math.isfinite(value)  # any number does
]


@pytest.mark.parametrize("name", sorted(CONFIGURED))
def test_defaults_of_a_class_are_those_of_its_yaml(name):
    found = inspect.signature(get_class(CONFIGURED[name]["_target_"])).parameters.values()
    named = {p.name: p.default for p in found if p.kind is p.POSITIONAL_OR_KEYWORD}
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in named.items()}
    assert list(CONFIGURED[name]) == ["_target_", *defaults], "in the order of the class"
    assert CONFIGURED[name] == {"_target_": CONFIGURED[name]["_target_"], **defaults}
    assert [type(v) for k, v in CONFIGURED[name].items() if k != "_target_"] == [type(v) for v in defaults.values()]


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS)
def test_a_bad_value_of_any_option_is_refused_by_name(name, option, value):
    with pytest.raises((TypeError, ValueError), match=option):
        get_class(CONFIGURED[name]["_target_"])(**{option: value})


SCHEDULED = {
    "gumbel_softmax": lambda e: e.temperature(),
    "st_gumbel_softmax": lambda e: e.temperature(),
    "gumbel_rao": lambda e: e.temperature(),
    "hard_concrete": lambda e: e.temperature(),
    "mve": lambda e: e.tau_now(),
    "slope_annealed": lambda e: e.slope(),
}


def test_a_tensor_given_for_an_option_is_refused_in_one_line():
    """As by a call of the class where one of the estimator was meant."""
    with pytest.raises(TypeError, match=r"temperature must be a number above 0, got tensor\(\[\[") as refused:
        GumbelSoftmax(torch.zeros(100, 20, 10))
    assert len(str(refused.value)) < 150
    assert "\n" not in str(refused.value)


def test_these_are_all_that_have_a_rate():
    assert {name for name, config in CONFIGURED.items() if "rate" in config} == SCHEDULED.keys()


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_of_rate_0_stands_still(name):
    estimator = instantiate(CONFIGURED[name], rate=0)
    (first,) = (value for option, value in CONFIGURED[name].items() if option in ("temperature", "tau", "slope"))
    for _ in range(1000):
        estimator.advance()
    assert float(SCHEDULED[name](estimator)) == first


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_of_another_rate_moves(name):
    estimator = instantiate(CONFIGURED[name], rate=0.001)
    for _ in range(1000):
        estimator.advance()
    assert float(SCHEDULED[name](estimator)) != 1.0


@pytest.mark.parametrize("name", sorted(CONFIGURED))
def test_settings_worth_trying_are_accepted_and_differ(name):
    found = get_class(CONFIGURED[name]["_target_"])
    settings = [dict(CONFIGURED[name], **setting) for setting in found.worth_trying]
    assert all(settings.count(setting) == 1 for setting in settings)
    assert all(instantiate(setting) for setting in settings)


def test_a_subclass_takes_over_no_names_and_no_settings():
    class Colder(GumbelSoftmax):
        pass

    assert (Colder.also_known_as, Colder.worth_trying) == ((), ({},))
    assert len(GumbelSoftmax.worth_trying) == 2
