r"""What metrics are called where people read, in which unit, and which way they are better."""

from dataclasses import dataclass, replace

from hardmax.harness.contents import bounded_text


@dataclass(frozen=True)
class Words:
    r"""About a metric.

    Attributes:
        title: A few words.
        unit: Of its values; empty for plain numbers.
        better: 1 if higher values are better, -1 if lower ones are, 0 if neither can be said.
        log: Whether its axis is logarithmic, so that geometric means are taken along curves.
    """

    title: str
    unit: str = ""
    better: int = 0
    log: bool = False

    @property
    def with_unit(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


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
LONGEST_TITLE = 100  # letters of what a task says
PLACES = {"logits": "to the logits", "encoder": "to the parameters"}
SPLITS = {"valid": "validation", "test": "test"}
AXES = {
    "steps": "optimiser steps",
    "evaluations": "evaluations of the objective, per example",
    "seconds": "seconds of training",
}


def said_in(content: dict) -> dict[str, Words]:
    r"""What a task says of its figures, by name, from what a run's folder has of it; what is none is left out."""
    found = {}
    for name, about in content.items():
        texts = [about.get(key) for key in ("title", "unit", "better")] if isinstance(about, dict) else [None]
        if all(isinstance(text, str) for text in (name, *texts)):
            title, unit, better = (bounded_text(str(text), LONGEST_TITLE) for text in texts)
            found[bounded_text(name)] = Words(title, unit, {"higher": 1, "lower": -1}.get(better, 0))
    return found


def words(metric: str, said: dict[str, Words]) -> Words:
    r"""About a metric, given what its task says of its figures; one that is not known is called as its key is."""
    if metric == "train/loss":
        return replace(OTHERS[metric], unit=said["loss"].unit if "loss" in said else "")
    if metric in OTHERS:
        return OTHERS[metric]
    group, _, name = metric.partition("/")
    if group == "gradient":
        where, _, what = name.partition("/")
        known = GRADIENTS.get(what, Words(spelled(what)))
        return replace(known, title=f"{known.title} {PLACES.get(where, spelled(where))}")
    known = said.get(name, Words(spelled(name)))
    return replace(known, title=f"{SPLITS.get(group, group)} {known.title}")


def spelled(key: str) -> str:
    return key.replace("/", " ").replace("_", " ")


def by_importance(metrics: set[str] | frozenset[str], said: dict[str, Words]) -> list[str]:
    r"""Held-out figures, in the order in which their task names them; what it does not name comes last."""
    order = {name: rank for rank, name in enumerate(said)}
    name = lambda metric: metric.partition("/")[2]
    return sorted(metrics, key=lambda metric: (order.get(name(metric), len(order)), metric))
