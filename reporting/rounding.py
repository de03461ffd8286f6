r"""Which biases and deviations are none, as they are rounding in single precision."""

import numpy as np

from hardmax.harness.contents import is_figure

ROUNDED_BIAS = 1e-4  # of the true gradient's norm
EPSILON = float(np.finfo(np.float32).eps)


def relative_square(bias2: object, error: object, norm: object, cost: float) -> tuple[float, float] | None:
    r"""A debiased squared bias and its standard error over the true gradient's squared norm; both 0 if it is rounding.

    A gradient is a difference of costs: its last digit is that of the cost, however short the gradient has become.
    None if there is no bias or no norm, or what comes out is no number.

    Arguments:
        bias2, error: As measured; an error that is none counts as 0.
        norm: Of the true gradient.
        cost: Of an example, in nats, as large as it gets in training; NaN: not known.
    """
    square = over_square(bias2, norm)
    if square is None or not is_figure(bias2):
        return None
    digit = 2 * EPSILON * (cost if is_figure(cost) else 0.0)
    known = error if is_figure(error) else 0.0
    return (0.0, 0.0) if max(bias2, known) <= digit**2 else (square, over_square(known, norm) or 0.0)


def over_square(square: object, norm: object) -> float | None:
    r"""A squared distance over a squared norm; None if either is no number, or what comes out is none."""
    if not (is_figure(square) and is_figure(norm) and norm):
        return None
    quotient = square / norm**2
    return quotient if is_figure(quotient) else None


def without_rounding(relative: np.ndarray | float) -> np.ndarray:
    r"""Biases or deviations over the true norm, 0 for those that are rounding."""
    return np.where(relative <= ROUNDED_BIAS, 0.0, relative)
