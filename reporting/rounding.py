r"""Which biases and deviations are none, as they are rounding in single precision."""

import numpy as np

ROUNDING = 1e-4  # of the true gradient's norm
EPSILON = float(np.finfo(np.float32).eps)


def relative_square(bias2: float, error: float, norm: float, cost: float | None) -> tuple[float, float]:
    r"""A debiased squared bias and its standard error over the true gradient's squared norm; both 0 if it is rounding.

    A gradient is a difference of costs: its last digit is that of the cost, however short the gradient has become.

    Arguments:
        bias2, error: As measured.
        norm: Of the true gradient.
        cost: Of an example, as large as it is in training; None: not known.
    """
    digit = 2 * EPSILON * abs(cost or 0.0)
    if max(bias2, error) <= digit**2:
        return 0.0, 0.0
    return bias2 / norm**2, error / norm**2


def without_rounding(relative: np.ndarray) -> np.ndarray:
    r"""Biases or deviations over the true norm, 0 for those that are rounding."""
    return np.where(relative <= ROUNDING, 0.0, relative)
