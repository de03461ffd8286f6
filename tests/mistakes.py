"""Known mistakes in public code of gradient estimators, and the numbers that show them.

``python tests/mistakes.py`` (``make certification``) writes docs/certification.md, in seconds. The wrong estimators
are those that the tests reject.
"""

import itertools
import math
from collections.abc import Callable

import torch

from hardmax import certification as c
from hardmax import markdown
from hardmax.estimators import (
    ARSM,
    CARMS,
    IMLE,
    VIMCO,
    ARSPlus,
    DisARMIW,
    DisARMTree,
    GumbelRao,
    Rebar,
    Reinforce,
    ScoreControlVariate,
    StochasticStraightThrough,
    StraightThroughGumbelSoftmax,
    Stratified,
    UnorderedSet,
    unordered_set,
)
from hardmax.estimators import carms as carms_file
from hardmax.estimators.released import ARSPlusAsReleased, CoupledLeaveOneOut, GumbelRaoAsReleased
from hardmax.paths import ROOT
from helpers.laws import (
    antithetic_law,
    comb,
    enumerated,
    enumerated_sets,
    inverse_law,
    law_in_order,
    orders,
    strata_law,
)
from helpers.wrong import (
    AddedCosts,
    BinaryRebar,
    ByDefinition,
    ClampedLog,
    Clipped,
    DetachedLogQ,
    DiagonalJacobian,
    DividedByTheOthers,
    FixedOrder,
    MeanOverReferences,
    MeanThatMovesFirst,
    NothingLeftOut,
    RelaxedRebar,
    Undivided,
    Unsorted,
)

PAGE = ROOT / "docs" / "certification.md"
DRAWS, PARTS = 2_000_000, 40


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative error of an expected gradient."""
    return float((found - truth).norm() / truth.norm())


def mean_of_draws(estimator, problem) -> c.MeanOfDraws:
    torch.manual_seed(0)
    run, moments = c.runner(estimator, problem), c.MeanOfDraws()
    for _ in range(PARTS):
        moments.add(run(DRAWS // PARTS)[1])
    return moments


def sampled(estimator, problem) -> tuple[float, float]:
    """Relative error of the mean of many draws, and what an unbiased estimator would show for its noise alone."""
    moments, truth = mean_of_draws(estimator, problem), problem.truth()[1]
    return error(moments.mean, truth), float(moments.error().norm() / truth.norm())


def by_draws(wrong, right, problem) -> tuple[str, str, str]:
    (found, noise), (fine, fine_noise) = sampled(wrong, problem), sampled(right, problem)
    return f"{found:.1%} (noise {noise:.1%})", f"{fine:.1%} (noise {fine_noise:.1%})", f"{DRAWS:,} draws"


def exactly(found, right, problem) -> tuple[str, str, str]:
    truth = problem.truth()[1]
    return f"{error(found[1], truth):.2%}", f"{error(right[1], truth):.0e}", "enumeration"


def skewed() -> c.SmallProblem:
    """One variable, whose first category has more than half of the probability."""
    problem = c.SmallProblem(1, 5)
    problem.logits = torch.tensor([[0.6, 0.2, 0.1, 0.07, 0.03]], dtype=torch.float64).log()
    return problem


def relax():
    return by_draws(ByDefinition(shared=False), Rebar(0.7, learned=False), c.SmallProblem(1, 4, extreme=0.5))


def disarm():
    problem = skewed()
    p = problem.logits[0].exp()
    found = enumerated(Unsorted(), "pair", problem, [antithetic_law(p, comb(range(5)))])
    right = enumerated(DisARMIW(), "pair", problem, [antithetic_law(p, comb(p.argsort().tolist()))])
    return exactly(found, right, problem)


def carms(wrong: Callable, law_of: Callable):
    problem = c.SmallProblem(1, 5)
    p = problem.logits[0].softmax(-1)
    estimator, right = CARMS(2, "inverse_cdf"), CARMS(2, "inverse_cdf")
    estimator.coupling = wrong(2)
    found = enumerated(estimator, "draws", problem, [law_of(p)])
    return exactly(found, enumerated(right, "draws", problem, [inverse_law(p, 2)]), problem)


def released_sticks():
    problem = c.SmallProblem(1, 5)
    law = antithetic_law(p := problem.logits[0].softmax(-1), comb(p.argsort().tolist()))
    right, inverse = enumerated(CARMS(2), "draws", problem, [law]), carms_file.inverse
    carms_file.inverse = lambda order: order
    try:
        found = enumerated(CARMS(2), "draws", problem, [law])
    finally:
        carms_file.inverse = inverse
    return exactly(found, right, problem)


def own_orders(p: torch.Tensor) -> torch.Tensor:
    """The law of pairs in which each draw has an order of its own."""
    edges = {tuple(o): torch.cat([p.new_zeros(1), p[o].cumsum(0)]).clamp(max=1.0) for o in orders(len(p))}
    law = torch.zeros(len(p), len(p), dtype=p.dtype)
    for one, other in itertools.product(edges, repeat=2):
        joint = (edges[one][:, None] + edges[other] - 1).clamp(min=0).diff(dim=0).diff(dim=1)
        law[torch.meshgrid(torch.tensor(one), torch.tensor(other), indexing="ij")] += joint / len(edges) ** 2
    return law


def unordered():
    problem = c.SmallProblem(1, 5)
    right, _ = enumerated_sets(UnorderedSet(2, False), problem)
    log1mexp = unordered_set.log1mexp
    unordered_set.log1mexp = lambda x: -log1mexp(x)
    try:
        found, _ = enumerated_sets(UnorderedSet(2, False), problem)
    finally:
        unordered_set.log1mexp = log1mexp
    return exactly(found, right, problem)


def by_outcomes(wrong, right, problem=None):
    problem = problem or c.SmallProblem(1, 3)
    return exactly(*(c.enumerate_draws(c.runner(e, problem)) for e in (wrong, right)), problem)


def rare_and_dear() -> c.SmallProblem:
    """One variable of three categories, of which the rarest costs far more than the others."""
    problem = c.SmallProblem(1, 3)
    problem.logits = torch.tensor([[0.55, 0.4, 0.05]], dtype=torch.float64).log()
    costs = torch.tensor([0.0, 1.0, 100.0], dtype=torch.float64)
    problem.objective = lambda parameters: lambda z: (z @ costs).sum(-1) + 0 * parameters[0].sum()  # type: ignore
    return problem


def division():
    problem, truth = rare_and_dear(), rare_and_dear().truth()[1]
    estimators = Reinforce(4, "group", normalise="group"), Reinforce(4, "leave_one_out")
    found, right = (c.enumerate_draws(c.runner(e, problem))[1] for e in estimators)
    cosine = float(found @ truth / found.norm() / truth.norm())
    return f"{error(found, truth):.1%}, cosine {cosine:.2f}", f"{error(right, truth):.0e}", "enumeration"


def coupled():
    problem = c.SmallProblem(1, 5)
    laws = [strata_law(problem.logits[0].softmax(-1), 4)]
    found, right = (enumerated(e, "draws", problem, laws) for e in (CoupledLeaveOneOut(4), Stratified(4)))
    return exactly(found, right, problem)


def clamped():
    """Of the logit of the one category that is rarer than 1e-8, where the exact gradient is not 0 either."""
    problem = c.SmallProblem(1, 4)
    problem.logits[0, 3] = math.log(1e-9) + problem.logits[0, :3].logsumexp(-1)
    truth = problem.truth()[1][3:]
    estimators = ClampedLog(1, "none"), Reinforce(1, "none")
    found, right = (c.enumerate_draws(c.runner(e, problem))[1][3:] for e in estimators)
    return f"{error(found, truth):.1%} of that logit's", f"{error(right, truth):.0e}", "enumeration"


def gumbel_rao():
    """Against the mean of straight-through Gumbel-softmax, which both forms should have, at logits around 20."""
    problem = c.SmallProblem(1, 4)
    problem.logits += 20
    right = mean_of_draws(StraightThroughGumbelSoftmax(), problem)
    found, ours = (error(mean_of_draws(e, problem).mean, right.mean) for e in (GumbelRaoAsReleased(2), GumbelRao(2)))
    return (
        f"{found:.1%} (noise {right.error().norm() / right.mean.norm():.1%})",
        f"{ours:.1%}",
        f"{DRAWS:,} draws",
    )


def relaxed_rebar():
    return by_draws(RelaxedRebar(0.5), Rebar(0.5, learned=False), c.SmallProblem(1, 4, extreme=0.5))


def vimco():
    problem = c.SmallProblem(1, 3)
    truth = problem.truth(log_q=True, samples=2)
    wrong, right = (c.enumerate_draws(c.runner(e(2), problem, log_q=True)) for e in (DetachedLogQ, VIMCO))
    return f"{error(wrong[1], truth[1]):.1%}", f"{error(right[1], truth[1]):.0e}", "enumeration"


def signed_differences():
    """What a check of bias by the mean of signed differences reports for a biased estimator."""
    problem = c.SmallProblem(2, 3)
    found = c.enumerate_draws(c.runner(StochasticStraightThrough(), problem))[1]
    truth = problem.truth()[1]
    return f"{error(found, truth):.0%}, reported as {abs(float((found - truth).mean())):.0e}", "", "enumeration"


MISTAKES = {
    "RELAX: every category that lost uses its own noise twice (`v_i`) where all share that of the winner (`v_b`)": (
        "two published repositories, among them one that compares estimators with it",
        relax,
    ),
    "REBAR of two categories: pluses for minuses in the two logits of its noise given the draw": (
        "a published library; its RELAX has the same noise",
        lambda: by_draws(BinaryRebar(1), BinaryRebar(-1), c.SmallProblem(2, 2)),
    ),
    "DisARM with importance weights, sticks not sorted": (
        "beyond a stick of probability 1/2 or more the draws never go on together",
        disarm,
    ),
    "DisARM: half of the sum of the two costs where half of their difference belongs": (
        "a published library, of two categories: the gradient's mean is 0",
        lambda: by_draws(AddedCosts(), DisARMTree(), c.SmallProblem(2, 2)),
    ),
    "CARMS by sticks: weights go back from the sorted categories by the order, and not by its inverse": (
        "the released code, here with 2 draws: right only where the order is its own inverse",
        released_sticks,
    ),
    "CARMS by inverse CDF, one fixed order of the categories": (
        "most pairs of categories, neighbours above all, are never drawn together",
        lambda: carms(FixedOrder, lambda p: law_in_order(p, list(range(len(p))), 2)),
    ),
    "CARMS by inverse CDF, an order for each draw and the ratio of a common one": (
        "the released code",
        lambda: carms(CARMS(2, "inverse_cdf").coupling.__class__, own_orders),
    ),
    "CARMS by inverse CDF, ratio smoothed by 0.001 and clipped to [0.01, 10]": (
        "the released code; far too small for a statistical test",
        lambda: carms(Clipped, lambda p: inverse_law(p, 2)),
    ),
    "ARSM: mean over the reference category in place of the sum": (
        "a published re-implementation: every gradient is 1/C of what it should be",
        lambda: by_draws(MeanOverReferences(), ARSM(), c.SmallProblem(1, 4, extreme=0.5)),
    ),
    "ARS+: for the noise its mean given whether each swapped category wins, and not which other one does": (
        "the released code",
        lambda: by_draws(ARSPlusAsReleased(), ARSPlus(), c.SmallProblem(3, 3)),
    ),
    "Unordered set: a flipped sign in the logarithm of 1 - p": ("a widely used library", unordered),
    "Leave-one-out that leaves out draw i by `~i`, which is true of every index: the mean of all draws": (
        "a published leave-one-out REINFORCE, here with 4 draws: every gradient is (S - 1) / S of what it should be",
        lambda: by_outcomes(NothingLeftOut(4, "leave_one_out"), Reinforce(4, "leave_one_out")),
    ),
    "Running mean of the costs that is moved before it is subtracted": (
        "a published library, with its decay of 0.95 and one cost a step: every gradient is 0.95 of what it should be",
        lambda: by_outcomes(MeanThatMovesFirst(1, decay=0.95), Reinforce(1, decay=0.95)),
    ),
    "Mean of the group, and division by its standard deviation": (
        "policy optimisation of language models, here with 4 draws and a cost of 100 that one draw in 20 has: its "
        "weight is lost, and with it the direction",
        division,
    ),
    "Leave-one-out, and division by the standard deviation of the other draws": (
        "lies close at hand, here with 3 draws and 1e-4 added to the deviation: the direction is right, and the length "
        "that of a division by 1e-4 wherever the others agree",
        lambda: by_outcomes(DividedByTheOthers(3, "leave_one_out"), Reinforce(3, "leave_one_out"), rare_and_dear()),
    ),
    "Score function as control variate, the coefficient from the draws that it corrects": (
        "black box variational inference as published, here with 4 draws",
        lambda: by_outcomes(ScoreControlVariate(4, leave_one_out=False), ScoreControlVariate(4)),
    ),
    "Coupled draws, and plain leave-one-out": (
        "quasi-random numbers in an estimator for random ones, here 4 stratified draws: where the others are tells "
        "where this one is",
        coupled,
    ),
    "`log(max(p, 1e-8))` in place of a logarithm of the softmax": (
        "many; a category rarer than that has no gradient when it is drawn, so that it is never learned again",
        clamped,
    ),
    "REBAR that returns its relaxed sample": (
        "a published class of that name, at a temperature of 0.5: it is Gumbel-softmax, with the bias of that",
        relaxed_rebar,
    ),
    "VIMCO: log q detached": ("from estimators of an expectation, where detaching is right", vimco),
    "Gumbel-Rao: 1e-8 added to waiting times of probabilities that are not normalised": (
        "three repositories, one with 1e-8, two with 1e-20; here 1e-8, at logits around 20 and beside straight-through "
        "Gumbel-softmax, whose mean it should have: a constant that is added to all logits takes the gradient away",
        gumbel_rao,
    ),
    "Implicit MLE: the difference of the draws not divided by the step": (
        "the released code; with a step of 0.01 and a linear cost, whose gradient is right but for the step's length",
        lambda: by_draws(Undivided(0.01), IMLE(0.01), c.SmallProblem(2, 3, linear=True)),
    ),
    "Straight-through: the diagonal of the softmax's Jacobian alone": (
        "a published comparison of surrogate gradients, by an index too few in `einsum`; there of the most probable "
        "category, here of a draw and with a linear cost",
        lambda: by_outcomes(DiagonalJacobian(), StochasticStraightThrough(), c.SmallProblem(2, 3, linear=True)),
    ),
    "Bias as the mean of signed differences": (
        "a published check; the differences over categories always sum to 0, so it passes everything",
        signed_differences,
    ),
}


def table() -> str:
    titles = ["mistake", "seen in, or why", "error of the expected gradient", "hardmax", "by"]
    return markdown.table(titles, ([mistake, where, *measure()] for mistake, (where, measure) in MISTAKES.items()))


HEAD = """\
# What certification caught

Wrong gradients are silent: training still moves, only to a worse place. Each line below is a mistake that has been made
in public code or lies close at hand, written down as an estimator of its own, together with what the conformance suite
measures: the relative error of the *expected* gradient, the norm of its difference from the exact one over the norm of
that. Where draws are averaged, the noise is what an unbiased estimator shows. A test rejects every one of them.

Written by `make certification`.

"""


def main() -> None:
    PAGE.write_text(HEAD + table())
    print(PAGE)


if __name__ == "__main__":
    main()
