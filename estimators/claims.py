r"""How many evaluations of the objective an estimator claims to take, as its class writes it."""

AT_MOST = "at most "  # before a number of evaluations that depends on the logits


def check_expression(evaluations: object) -> None:
    r"""Refuses a number of evaluations that is none, as an expression of K, C and S, or ``at most`` one."""
    try:
        found = evaluations_of(evaluations, 2, 3, 4)  # type: ignore[arg-type]
    except Exception:  # whatever the expression does
        found = None
    if not isinstance(found, int) or isinstance(found, bool):
        such = f"'1', 'S' or '{AT_MOST}C ** K'"
        raise TypeError(f"evaluations must be a text of K, C and S such as {such}, got {evaluations!r}")


def evaluations_of(expression: str, K: int, C: int, S: int) -> int:
    r"""The number, or the most, of evaluations that an estimator's expression of K, C and S stands for."""
    return eval(expression.removeprefix(AT_MOST), {}, {"K": K, "C": C, "S": S})
