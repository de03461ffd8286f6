r"""What metrics are called where people read, in which unit, and which way they are better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    r"""About a metric.

    Attributes:
        title: A few words.
        unit: Of its values; empty for plain numbers.
        better: 1 if higher values are better, -1 if lower ones are, 0 if neither can be said.
        log: Whether its axis is logarithmic, so that geometric means are taken along curves.
        robust: Whether its axis leaves out the highest values, with which a run begins.
    """

    title: str
    unit: str = ""
    better: int = 0
    log: bool = False
    robust: bool = False

    @property
    def with_unit(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


# Figures of merit; where one is held out, its name follows "validation" or "test".
FIGURES = {
    "distance": Words("distance to the language's entropy", "nats per token", -1),
    "elbo": Words("ELBO, discrete draws", "nats", 1),
    "nll": Words("negative log-likelihood", "nats", -1),
    "kl": Words("KL divergence", "nats"),
    "gap": Words("expected cost above the optimum", "", -1),
    "cost": Words("expected cost", "", -1),
    "accuracy": Words("accuracy", "share right", 1),
    "bound": Words("importance-weighted bound", "nats", 1),
    "bits": Words("code length", "bits per token", -1),
    "reconstruction": Words("reconstruction error", "nats"),
    "optimum": Words("optimum"),
    "balance": Words("balance of the experts", "share of the highest entropy"),
}
OTHERS = {
    "train/loss": Words("training loss"),
    "cost/evaluations": Words("evaluations", "in all"),
    "cost/evaluations_per_step": Words("evaluations", "per step"),
    "cost/seconds": Words("training time", "s"),
}
GRADIENTS = {
    "variance": Words("gradient variance", log=True),
    "variance_mean": Words("gradient variance, mean over components,", log=True),
    "bias2": Words("gradient bias", "share of the true gradient", log=True),
    "relative_bias": Words("gradient bias", "share of the true gradient"),
    "snr": Words("signal-to-noise ratio of the gradient", log=True),
    "dead": Words("dead components of the gradient", "share"),
}
PLACES = {"logits": "to the logits", "encoder": "to the parameters"}
SPLITS = {"valid": "validation", "test": "test"}
UNIT_OF_LOSS = {"text": "nats per token", **dict.fromkeys(("dvae", "structured", "semi_supervised"), "nats")}
AXES = {
    "steps": "optimiser steps",
    "evaluations": "evaluations of the objective, per example",
    "seconds": "seconds of training",
}


def words(metric: str, task: str = "", beside: frozenset[str] = frozenset()) -> Words:
    r"""About the metric of a task; one that is not known here is called what its key says.

    Arguments:
        beside: The task's other metrics: beside an ELBO, a KL divergence is a part of it, and neither good nor bad.
    """
    if metric in OTHERS:
        known = OTHERS[metric]
        return Words(known.title, UNIT_OF_LOSS.get(task, ""), robust=True) if metric == "train/loss" else known
    group, _, name = metric.partition("/")
    if group == "gradient":
        where, _, what = name.partition("/")
        known = GRADIENTS.get(what, Words(spelled(what)))
        return Words(f"{known.title} {PLACES.get(where, spelled(where))}", known.unit, known.better, known.log)
    known, better = FIGURES.get(name, Words(spelled(name))), FIGURES.get(name, Words("")).better
    unit = known.unit
    if name == "kl" and not any(other.endswith("/elbo") for other in beside):
        known, better = Words("KL divergence of the model from the language"), -1
    if unit == "nats" and task == "text":
        unit = "nats per token"
    return Words(f"{SPLITS.get(group, group)} {known.title}", unit, better)


def spelled(key: str) -> str:
    return key.replace("/", " ").replace("_", " ")


def by_importance(metrics: set[str] | frozenset[str]) -> list[str]:
    r"""Held-out figures, the one that says most about a task first."""
    order = {name: rank for rank, name in enumerate(FIGURES)}
    name = lambda metric: metric.partition("/")[2]
    return sorted(metrics, key=lambda metric: (order.get(name(metric), len(order)), metric))
