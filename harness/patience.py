r"""The best validation of a run so far, and when to wait for a better one no longer."""

import copy
import math

from torch import nn

from hardmax.tasks.base import Task

from .shared import Refused


class Best:
    r"""The best validation so far, and the parameters that had it.

    Arguments:
        patience: Validations without a better one after which a run is over.
        task, estimator: Whose parameters and running state are kept.

    Attributes:
        name: The figure that decides: the task's first on the validation split that can be better or worse.
        score: The best so far, negative where lower ones are better.
        step: When that was.
        since: Validations since then.
        over: Whether the run has made its last row.
        kept: State of task and estimator at that step.

    Raises:
        Refused: If none of the task's figures can be better or worse.
    """

    VALUES = ("name", "score", "step", "since", "over")

    def __init__(self, patience: int, task: Task, estimator: nn.Module):
        self.patience, self.modules = patience, {"task": task, "estimator": estimator}
        self.signs = {name: 1 if f.better == "higher" else -1 for name, f in task.figures.items() if f.better}
        if not self.signs:
            raise Refused(f"patience={patience}: no figure of {type(task).__name__} can be better or worse")
        self.name, self.score, self.step, self.since, self.over = "", -math.inf, 0, 0, False
        self.kept = self.copied()

    @property
    def figures(self) -> dict[str, float]:
        r"""The best validation by the name of its figure, and its step."""
        return {f"valid/{self.name}": self.signs[self.name] * self.score, "best_step": self.step}

    def copied(self) -> dict[str, dict]:
        r"""Parameters and running state as they are now."""
        return {part: copy.deepcopy(module.state_dict()) for part, module in self.modules.items()}

    def is_last(self, step: int, validation: dict[str, float]) -> bool:
        r"""Takes note of a validation, whose figures are given by metric; whether to wait for a better one no longer.

        Raises:
            Refused: If none of its figures can be better or worse.
        """
        self.name = next((name for name in self.signs if f"valid/{name}" in validation), "")
        if not self.name:
            raise Refused(f"patience={self.patience}: no figure on the validation split can be better or worse")
        score = self.signs[self.name] * float(validation[f"valid/{self.name}"])
        if score > self.score:
            self.score, self.step, self.since, self.kept = score, step, 0, self.copied()
        else:
            self.since += 1
        return self.since >= self.patience

    def restore(self) -> None:
        r"""Gives task and estimator what they had at the best validation, but for what they count along training."""
        for part, module in self.modules.items():
            history = {name: module.get_buffer(name) for name in getattr(module, "history", ())}
            module.load_state_dict(self.kept[part] | history)

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in self.VALUES} | {"kept": self.kept}

    def load_state_dict(self, state: dict) -> None:
        known = state["name"] in self.signs or (not state["name"] and not state["over"])
        if not known or math.isnan(state["score"]) or min(state["step"], state["since"]) < 0:
            raise ValueError("the best validation is none")
        for name in self.VALUES:
            setattr(self, name, state[name])
        self.kept = copy.deepcopy(state["kept"])
