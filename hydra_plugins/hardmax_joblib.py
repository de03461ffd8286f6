"""Jobs of a sweep side by side. Hydra looks for launchers in a package of this name."""

import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Joblib(JoblibLauncher):
    r"""Hydra's launcher for joblib, with pools of one process each: a process that dies takes no job but its own along.

    Arguments:
        n_jobs: Jobs at a time; -1: as many as there are cores.
        others: What joblib takes beside it; not used.
    """

    def __init__(self, n_jobs: int = -1, **others: object):
        super().__init__(n_jobs=n_jobs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        import joblib
        from hydra_plugins.hydra_joblib_launcher._core import execute_job
        from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

        from hardmax.harness.pause import end_with_parent
        from hardmax.harness.sweep import Sweep

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep, state = Sweep(Path(self.config.hydra.sweep.dir)), Singleton.get_state()
        at_once = min(joblib.effective_n_jobs(self.joblib["n_jobs"]), len(job_overrides))
        new_pool = lambda: ProcessPoolExecutor(1, initializer=end_with_parent, env={**ONE_THREAD, **os.environ})
        pools: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(at_once):
            pools.put(new_pool())

        def job(number: int, overrides: Sequence[str]) -> JobReturn:
            what = (execute_job, number, overrides, self.hydra_context, self.config, self.task_function, state)
            pool = pools.get()
            try:
                if sweep.stopping():  # without waiting for a process to say so
                    sweep.note(number, list(overrides), {"status": "stopped", "reason": "not begun"})
                    return JobReturn(status=JobStatus.COMPLETED)
                for attempt in (1, 2):
                    try:
                        return pool.submit(*what).result()
                    except BrokenProcessPool as error:
                        pool, how = new_pool(), re.search(r"{(.*)}", str(error))
                        if attempt == 2 or sweep.outcome_of(number):  # else it had died before it was given the job
                            break
            finally:
                pools.put(pool)
            sweep.note_death(number, overrides, how[1] if how else "it is not known how")
            return JobReturn(status=JobStatus.COMPLETED)

        with ThreadPoolExecutor(at_once) as threads:
            returned = list(threads.map(job, itertools.count(initial_job_idx), job_overrides))
        for _ in range(at_once):
            pools.get().shutdown()
        return returned
