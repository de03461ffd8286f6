r"""A certificate in words, in lines for a terminal."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .certificate import Certificate, Outcome
    from .task_certificate import TaskCertificate

LABEL_WIDTH = 58  # of the column that says what is meant


def certificate_heading(certificate: "Certificate") -> Iterator[str]:
    r"""What it is of, and what that claims."""
    yield f"{certificate.name} (torch {certificate.torch})"
    claims = certificate.claims
    if claims is None:
        kind = {
            "expectation": "draws one-hot z",
            "mode": "gives the most probable categories, always",
            "relaxed": "gives points of the simplex",
        }
        yield f"a sampler, which claims nothing; {kind[certificate.target]}"
        return
    yield ", ".join(
        [
            f"claims: target {claims['target']}",
            "unbiased" if claims["unbiased"] else "biased",
            f"{'differentiates' if claims['differentiates_objective'] else 'only values of'} the objective",
            f"{claims['evaluations']} evaluations",
            "torch.compile" if claims["compiles"] else "no torch.compile",
        ]
    )


def figure_lines(certificate: "Certificate") -> Iterator[str]:
    r"""A column for each problem."""
    found = certificate.measurements
    bound = ", from the bound's" if certificate.target == "bound" else ""
    columns = [m.problem.removeprefix("SmallProblem") for m in found]
    yield ""
    yield text_row("(K, C)", columns)
    yield text_row("value", [number(m.value, m.value_error) for m in found])
    yield text_row(f"its target ({certificate.target})", [f"{m.target:.4f}" for m in found])
    yield text_row(f"gradient's bias{bound}", [percentage(m.bias, m.bias_error) for m in found])
    of_parameters = [percentage(m.parameters_error, m.parameters_error_error) for m in found]
    yield text_row("error of the gradient to the parameters", of_parameters)
    yield text_row("variance", [f"{m.variance:.4g}" for m in found])
    for name, to in {"REINFORCE": "reinforce", "leave-one-out REINFORCE": "leave_one_out"}.items():
        for work in (False, True) if certificate.target != "bound" else ():  # their gradient is another one
            label = f"variance{' x evaluations' if work else ''} / that of {name}"
            yield text_row(label, [f"{m.ratio(to, work):.3g}" for m in found])
    yield text_row("evaluations", [f"{m.evaluations}" for m in found])
    exact = all(m.draws is None for m in found)
    yield "by enumeration" if exact else f"by {max(m.draws or 0 for m in found):,} draws: ± one standard error"
    yield ""


def text_row(label: str, cells: list[str]) -> str:
    return padded(label) + "".join(f"{cell:>20}" for cell in cells)


def padded(label: str) -> str:
    r"""A label in its column, and at least one space after it."""
    return f"{label:<{LABEL_WIDTH - 1}} "


def number(value: float, error: float) -> str:
    return f"{value:.4f}" + (f" ± {error:.4f}" if error else "")


def percentage(value: float, error: float) -> str:
    r"""A relative distance: exact ones that are rounding are 0."""
    if not math.isfinite(value):
        return "not finite"
    if max(value, error) < 1e-9:
        return "0"
    return f"{value:.1%}" + (f" ± {error:.1%}" if error > 1e-9 else "")


def verdict(outcome: "Outcome") -> Iterator[str]:
    r"""Whether a claim holds; if not, what is wrong and how to see it again."""
    yield f"{padded(outcome.claim)}{'holds' if outcome.holds else 'FAILS'}"
    if not outcome.holds:
        yield f"  {outcome.message}"
        yield from (f"    {line}" for line in outcome.code.splitlines())
    if outcome.remark:
        yield f"  {outcome.remark}"


def ending(certificate: "Certificate") -> Iterator[str]:
    r"""The verdict on the gradient's bias, and on the whole."""
    failed = [o.claim for o in certificate.outcomes if not o.holds]
    of = "every sampler must do" if certificate.claims is None else "is claimed"
    yield ""
    if certificate.measurements:
        yield verdict_on_bias(certificate)
    yield from certificate.remarks
    said = f"NOT certified: {len(failed)} of {len(certificate.outcomes)} fail"
    if not failed:
        said = f"certified: all that {of} holds"
    yield f"{said} ({certificate.seconds:.0f} s)"


def verdict_on_bias(certificate: "Certificate") -> str:
    r"""Whether the gradient is biased, by how much where it is most, and whether it is claimed not to be."""
    worst = max(certificate.measurements, key=lambda m: m.bias)
    size = percentage(worst.bias, worst.bias_error)
    if certificate.claims is None:
        return f"gradient: biased by up to {size}"
    if not certificate.claims["unbiased"] and not certificate.shows_bias:
        return f"gradient: no bias can be told on these problems ({size}), and not claimed to be unbiased"
    if not certificate.claims["unbiased"]:
        return f"gradient: biased by up to {size}, and not claimed to be unbiased"
    holds = all(o.holds for o in certificate.outcomes if o.claim == "expected value and gradients")
    return (
        f"gradient: unbiased, as claimed ({size})" if holds else f"gradient: claimed unbiased, biased by up to {size}"
    )


def ending_of_task(certificate: "TaskCertificate") -> Iterator[str]:
    r"""The verdict on a task as a whole."""
    failed = [o for o in certificate.outcomes if not o.holds]
    said = (
        f"NOT certified: {len(failed)} of {len(certificate.outcomes)} fail"
        if failed
        else "certified: all that every task must do holds"
    )
    yield ""
    yield f"{said} ({certificate.seconds:.0f} s)"
