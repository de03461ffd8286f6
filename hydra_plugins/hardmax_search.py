"""A search for each of several estimators. Hydra looks for sweepers in a package of this name."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from .hardmax_rows import Composed, as_text, best_of_each, expanded, final_jobs

SETTING = "setting"  # in a search's own terms: which of those worth trying


class Search(Sweeper):
    r"""Optuna's search with as many trials for each estimator, one after the other; then the best of each again.

    Arguments:
        space: ``default`` searches the settings that the class of the estimator calls worth trying as well.
        finals: See :class:`hydra_plugins.hardmax_rows.Rows`.
        settings: Of Optuna's sweeper.
    """

    def __init__(self, space: str | None = None, finals: dict | None = None, **settings: Any):
        self.space, self.finals, self.settings = space, finals, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.function, self.whole = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

        loader = self.context.config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        composed, parser = Composed(loader, self.whole), OverridesParser.create(loader)
        results = Path(self.whole.hydra.sweep.dir) / "optimization_results.yaml"
        recorder: Recorder | None = None
        searches = one_for_each(arguments, parser)
        for estimator, others in searches:
            settings = composed.worth_trying(estimator) if self.space else ({},)
            search = OptunaSweeper(**self.settings_of(estimator, len(searches)))  # with a sampler of its own
            search.setup(hydra_context=self.context, task_function=self.function, config=self.whole)
            assert search.sweeper.launcher is not None
            recorder = recorder or Recorder(search.sweeper.launcher)
            recorder.settings, search.sweeper.launcher = settings, recorder
            choices = [f"{SETTING}={','.join(map(str, range(len(settings))))}"] if len(settings) > 1 else []
            try:
                search.sweep([*estimator, *others, *choices])
            except ValueError as error:  # Optuna's, of an estimator whose trials have all failed, and been said to
                if not str(error).startswith("No trials are completed"):
                    raise
            if len(searches) > 1 and results.exists():
                results.rename(results.with_stem(f"{results.stem}_{estimator[0].partition('=')[2]}"))
        assert recorder is not None
        if self.finals:
            best = best_of_each(recorder.jobs, [job.return_value for job in recorder.returned])
            recorder.launch(final_jobs(best, self.finals, parser), 0)
        return recorder.returned

    def settings_of(self, estimator: list[str], searches: int) -> dict[str, Any]:
        r"""Settings of the search of one of several estimators: a study that has a name is one of its own."""
        found = copy.deepcopy(self.settings)
        if searches > 1 and found.get("study_name"):
            found["study_name"] += f"-{estimator[0].partition('=')[2]}"
        return found


def one_for_each(arguments: Sequence[str], parser: OverridesParser) -> list[tuple[list[str], list[str]]]:
    r"""Overrides that choose an estimator, none where the command line names none, and all others; for each."""
    choosing = [argument for argument in arguments if argument.startswith("estimator=")]
    others = [argument for argument in arguments if argument not in choosing]
    names = expanded(choosing, parser) if choosing else [{}]
    return [([f"estimator={name['estimator']}"] if name else [], others) for name in names]


class Recorder(Launcher):
    r"""A launcher that numbers the jobs of several searches on, and knows what became of them.

    Arguments:
        launcher: That does the work.

    Attributes:
        settings: Of the estimator's own options, which a job chooses by their number.
        jobs, returned: Overrides of all jobs, and what they returned.
    """

    def __init__(self, launcher: Launcher):
        self.launcher = launcher
        self.settings: tuple[dict[str, Any], ...] = ({},)
        self.jobs: list[list[str]] = []
        self.returned: list[JobReturn] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        r"""Nothing: the launcher has been set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        batch = [self.in_full(job) for job in job_overrides]
        returned = self.launcher.launch(batch, initial_job_idx=len(self.jobs)) if batch else []
        self.jobs += batch
        self.returned += returned
        return returned

    def in_full(self, job: Sequence[str]) -> list[str]:
        r"""The overrides of a job with those of the setting that it chooses in place of its number."""
        numbers = [line.partition("=")[2] for line in job if line.startswith(f"{SETTING}=")]
        chosen = self.settings[int(numbers[0])] if numbers else self.settings[0] if len(self.settings) == 1 else {}
        of_setting = [f"estimator.{name}={as_text(value)}" for name, value in chosen.items()]
        given = {line.partition("=")[0] for line in job}
        kept = [line for line in of_setting if line.partition("=")[0] not in given]
        return [line for line in job if not line.startswith(f"{SETTING}=")] + kept
