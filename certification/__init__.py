r"""The conformance suite: whether any estimator, anybody's, is what it claims to be, and what its gradients are worth.

``hardmax certify`` prints a :class:`Certificate`; :func:`failures` gives what fails to a test of one's own. Of a task
:func:`task_failures` does the same, and ``hardmax certify --task`` prints it.

Exact enumeration where the randomness is finite, seeded z-tests elsewhere. torch and numpy are all that it needs.

Examples:
    >>> from hardmax.certification import failures
    >>> from hardmax.estimators import Exact
    >>> assert failures(Exact()) == []
"""

from hardmax.gradients.enumeration import ContinuousNoise, Failed, all_outcomes, enumerate_draws, patched

from .behaviour import (
    check_call,
    check_constants,
    check_evaluations,
    check_independent_draws,
    check_leading_dimensions,
    check_nested,
    check_rsample,
    check_shapes,
    check_state,
    check_sum_over_categories,
    check_without_gradients,
    evaluations,
    gradient_draws,
)
from .certificate import Certificate, Outcome, certify, failures
from .checks import OF_DRAWS, check_claims, check_downhill, check_expectation, check_rare_category, runner, truths_of
from .devices import Agreement, check_on_device
from .expectations import DRAWS, FALSE_ALARM, MeanOfDraws, assert_close, assert_mean, z_scores
from .in_training import (
    check_after_steps,
    check_features,
    check_other_calls,
    check_values_alone,
    check_weighted_costs,
)
from .limits import EXTREME, PRECISIONS, check_compiles, check_extreme_logits, check_precision, check_smallest_problem
from .measurement import Measurement, measure_on
from .problems import PROBLEMS, SMALL, Nested, SmallProblem, fitting
from .samplers import (
    Sampler,
    check_draw,
    check_fresh_noise,
    check_gradient_reaches_logits,
    check_independent_samples,
    check_law,
    check_law_of_each,
    check_many_draws_are_finite,
    check_simplex,
)
from .task_certificate import CHECKS_OF_TASKS, TaskCertificate, certify_task, task_failures
from .task_checks import (
    check_closing_over_logits,
    check_context,
    check_costs,
    check_examples_apart,
    check_expected_cost,
    check_penalty,
    check_repeated_costs,
)
from .task_parameters import check_encoder_parameters, check_pinned
from .task_promises import (
    check_batches,
    check_declarations,
    check_evaluation,
    check_measurement_examples,
    check_nothing_changes,
    check_shown,
)

__all__ = [
    "CHECKS_OF_TASKS",
    "DRAWS",
    "EXTREME",
    "FALSE_ALARM",
    "OF_DRAWS",
    "PRECISIONS",
    "PROBLEMS",
    "SMALL",
    "Agreement",
    "Certificate",
    "ContinuousNoise",
    "Failed",
    "MeanOfDraws",
    "Measurement",
    "Nested",
    "Outcome",
    "Sampler",
    "SmallProblem",
    "TaskCertificate",
    "all_outcomes",
    "assert_close",
    "assert_mean",
    "certify",
    "certify_task",
    "check_after_steps",
    "check_batches",
    "check_call",
    "check_claims",
    "check_closing_over_logits",
    "check_compiles",
    "check_constants",
    "check_context",
    "check_costs",
    "check_declarations",
    "check_downhill",
    "check_draw",
    "check_encoder_parameters",
    "check_evaluation",
    "check_evaluations",
    "check_examples_apart",
    "check_expectation",
    "check_expected_cost",
    "check_extreme_logits",
    "check_features",
    "check_fresh_noise",
    "check_gradient_reaches_logits",
    "check_independent_draws",
    "check_independent_samples",
    "check_law",
    "check_law_of_each",
    "check_leading_dimensions",
    "check_many_draws_are_finite",
    "check_measurement_examples",
    "check_nested",
    "check_nothing_changes",
    "check_on_device",
    "check_other_calls",
    "check_penalty",
    "check_pinned",
    "check_precision",
    "check_rare_category",
    "check_repeated_costs",
    "check_rsample",
    "check_shapes",
    "check_shown",
    "check_simplex",
    "check_smallest_problem",
    "check_state",
    "check_sum_over_categories",
    "check_values_alone",
    "check_weighted_costs",
    "check_without_gradients",
    "enumerate_draws",
    "evaluations",
    "failures",
    "fitting",
    "gradient_draws",
    "measure_on",
    "patched",
    "runner",
    "task_failures",
    "truths_of",
    "z_scores",
]
