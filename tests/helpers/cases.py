"""Every YAML under configs/estimator, and the settings that are certified as estimators of their own."""

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax.paths import CONFIGS

FOLDER = CONFIGS / "estimator"
# Settings beyond those of the YAML that are certified as estimators of their own.
VARIANTS = {
    "straight_through": [{"temperature": 0.5}],
    "stochastic_straight_through": [{"temperature": 0.5}],
    "identity_straight_through": [{"centred": True}],
    "gumbel_softmax": [{"temperature": 0.5}, {"learned": True}],
    "st_gumbel_softmax": [{"temperature": 0.5, "learned": True}],
    "softmax": [{"temperature": 0.5}],
    "sparsemax": [{"temperature": 2.0}],
    "entmax": [{"temperature": 0.5}],
    "st_sparsemax": [{"temperature": 2.0}],
    "st_entmax": [{"temperature": 0.5}],
    "gumbel_rao": [{"noises": 1, "temperature": 0.5}],
    "gapped_straight_through": [{"temperature": 0.5, "gap": 2.0}],
    "slope_annealed": [{"slope": 2.0}],
    "decoupled_st_gumbel": [{"backward_temperature": 0.5}, {"forward_temperature": 0.5}],
    "redge": [{"steps": 2, "t_1": 0.8}],
    "redge_cov": [{"steps": 3, "t_1": 0.3}],
    "reindge": [{"steps": 2, "t_1": 0.8}],
    "perturbed_argmax": [{"noises": 1, "control_variate": "none"}, {"noise": "normal", "control_variate": "argmax"}],
    "darn": [{"baseline": "uniform"}],
    "reinmax": [{"temperature": 0.5}],
    "reinmax_rao": [{"temperature": 0.5}],
    "reinmax_cv": [{"temperature": 2.0, "eta": 1.5, "relaxation_temperature": 0.5}],
    "mve": [{"tau": 0}, {"tau": 1e6}],
    "imle": [{"step": 0.1}],
    "symmetric_imle": [{"step": 0.1, "noises": 3}],
    "sum_of_gamma_imle": [{"noises": 2, "symmetric": True, "k": 3}],
    "adaptive_imle": [{"noises": 2, "symmetric": False, "beta": 0.1}],
    "hard_concrete": [{"margin": 0.5, "learned": True}],
    "spigot": [{"step": 0.1, "update": "cross_entropy"}, {"update": "exponentiated"}],
    "direct_optimisation": [{"step": 0.1}],
    "score_control_variate": [{"leave_one_out": False}, {"samples": 2}],
    "reinforce_without_replacement": [{"baseline": "none", "samples": 1}, {"baseline": "normalised"}, {"samples": 2}],
    "reinforce": [
        {"baseline": "none", "samples": 2},
        {"baseline": "leave_one_out", "samples": 2},
        {"baseline": "leave_one_out", "samples": 3},
        {"baseline": "batch"},
        {"baseline": "batch", "samples": 2},
        {"baseline": "greedy"},
        {"baseline": "sample"},
        {"baseline": "sample", "samples": 2},
        {"baseline": "group", "samples": 3},
        {"baseline": "group", "samples": 2, "normalise": "group"},
        {"baseline": "leave_one_out", "samples": 2, "normalise": "batch"},
    ],
    "nvil": [{"normalise": True}],
    "vimco": [{"samples": 2}, {"samples": 3}],
    "reweighted_wake_sleep": [{"samples": 2}],
    "vimco_arithmetic": [{"samples": 2}],
    "ovis_mc": [{"samples": 2, "auxiliary": 2}],
    "ovis_asymptotic": [{"gamma": 0.0}, {"samples": 2, "gamma": 0.0}],
    "tvo": [{"samples": 2, "steps": 1}],
    "carms": [{"samples": 2}, {"coupling": "inverse_cdf"}, {"samples": 2, "coupling": "inverse_cdf"}],
    "stratified": [{"samples": 2}],
    "random_local_expectation": [{"variables": 2}],
    "sum_and_sample": [{"samples": 2}, {"samples": 6}, {"samples": 3, "baseline": "sample"}],
    "unordered_set": [{"baseline": False}, {"samples": 1, "baseline": False}, {"samples": 2}],
}
CASES = [(path.stem, {}) for path in sorted(FOLDER.glob("*.yaml"))]
CASES += [(name, options) for name, variants in VARIANTS.items() for options in variants]
CASES = [pytest.param(case, id="-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])) for case in CASES]


def build(case):
    """The estimator of a case: the name of a YAML, and settings beyond it."""
    name, options = case
    return instantiate(OmegaConf.merge(OmegaConf.load(FOLDER / f"{name}.yaml"), options))


def in_part(cases, every):
    """Cases of a product, of which the quick suite tests each ``every``-th, and ``make test-long`` the others."""
    found = []
    for n, case in enumerate(cases):
        if not isinstance(case, pytest.ParameterSet):
            case = pytest.param(*case) if isinstance(case, tuple) else pytest.param(case)
        found.append(case._replace(marks=[*case.marks, *[pytest.mark.long] * (n % every != 0)]))
    return found
