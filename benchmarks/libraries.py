"""Milliseconds per step of hardmax beside other libraries' implementations of the same estimators.

The problem is that of ``benchmarks.estimators``, one thread. hardmax and the library take turns in one process, and
the median of the pairwise ratios is quoted: above 1, hardmax is slower. PyTorch is always there; the others come
with ``pip install -c constraints.txt -e '.[libraries]'``. Distributions do not check their arguments. Pyro computes
the whole evidence lower bound, so hardmax adds log q(z) - log p(z) there; its running mean is one of each example,
hardmax's is one of the batch. Run it as ``python -m benchmarks.libraries``.
"""

import math
import statistics
import warnings
from importlib.util import find_spec

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn.functional import gumbel_softmax

from benchmarks.shared import DecoderProblem, one_thread, take_turns
from hardmax.paths import CONFIGS

FOLDER = CONFIGS / "estimator"
TURNS = 50


def hardmax(problem: DecoderProblem, name: str, elbo: bool = False, **options):
    """The step of a YAML's estimator; with ``elbo`` the cost is the negative evidence lower bound."""
    estimator = instantiate(OmegaConf.merge(OmegaConf.load(FOLDER / f"{name}.yaml"), options))
    K, C = problem.logits.shape[-2:]
    prior = K * math.log(C) if elbo else 0.0  # -log p(z) of a uniform prior

    def step():
        estimator.zero_grad()
        problem.backward(estimator(problem.logits, lambda z: problem.objective(z) + prior, log_q=elbo))
        estimator.advance()

    return step


def of_torch(problem: DecoderProblem):
    """(name of the estimator, its options, whether it is about the bound, the library's step) of each."""

    def relaxed(hard: bool):
        problem.backward(problem.objective(gumbel_softmax(problem.logits, hard=hard)))

    yield "gumbel_softmax", {}, False, lambda: relaxed(False)
    yield "st_gumbel_softmax", {}, False, lambda: relaxed(True)


def of_pyro(problem: DecoderProblem):
    import pyro
    from pyro import distributions as dist
    from pyro.infer import Trace_ELBO, TraceGraph_ELBO

    pyro.enable_validation(False)
    logits, batch = problem.logits, len(problem.logits)

    def relaxed(distribution):
        z = distribution(torch.tensor(1.0), logits=logits).rsample()
        problem.backward(problem.objective(z))

    yield "gumbel_softmax", {}, False, lambda: relaxed(dist.RelaxedOneHotCategorical)
    yield "st_gumbel_softmax", {}, False, lambda: relaxed(dist.RelaxedOneHotCategoricalStraightThrough)

    def bound(elbo, distribution, infer=None):
        def model():
            with pyro.plate("images", batch):
                z = pyro.sample("z", distribution(logits=torch.zeros_like(logits)).to_event(1))
                pixels = problem.decoder(z.flatten(-2))
                pyro.sample("x", dist.Bernoulli(logits=pixels).to_event(1), obs=problem.image)

        def guide():
            with pyro.plate("images", batch):
                pyro.sample("z", distribution(logits=logits).to_event(1), infer=infer)

        if isinstance(elbo, TraceGraph_ELBO):
            problem.forget()
            elbo.loss_and_grads(model, guide)
        else:
            problem.backward(elbo.differentiable_loss(model, guide) / batch)

    def concrete(logits):
        return dist.RelaxedOneHotCategorical(torch.tensor(1.0), logits=logits)

    one, graph = Trace_ELBO(max_plate_nesting=1), TraceGraph_ELBO(max_plate_nesting=1)
    four = Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1)
    running = {"baseline": {"use_decaying_avg_baseline": True, "baseline_beta": 0.99}}
    yield "gumbel_softmax", {"relaxed_kl": True}, True, lambda: bound(one, concrete)
    yield "reinforce", {"baseline": "none"}, True, lambda: bound(one, dist.OneHotCategorical)
    yield "reinforce", {"baseline": "none", "samples": 4}, True, lambda: bound(four, dist.OneHotCategorical)
    yield "reinforce", {"baseline": "running_mean"}, True, lambda: bound(graph, dist.OneHotCategorical, running)


def of_pydrobert(problem: DecoderProblem):
    from pydrobert.torch import estimators as theirs

    logits, batch = problem.logits, len(problem.logits)

    def objective(b):
        return problem.objective(b).unsqueeze(-1)  # its costs have a dimension for K, its gradients are not averaged

    def reinforce():
        b = theirs.to_b(theirs.to_z(logits, "onehot"), "onehot").detach()
        cost = objective(b)
        problem.backward(cost)
        logits.backward(theirs.reinforce(cost.detach(), b, logits, "onehot") / batch)

    variate = theirs.REBARControlVariate(objective, "onehot", start_temp=0.5)

    def rebar(learned: bool):
        z = theirs.to_z(logits, "onehot")
        b = theirs.to_b(z, "onehot").detach()
        cost = objective(b)
        problem.backward(cost)
        gradient = theirs.relax(cost.detach(), b, logits, z.detach(), variate, "onehot")
        if learned:
            (gradient**2).sum().div(batch).backward(inputs=list(variate.parameters()))
        logits.backward(gradient.detach() / batch)

    yield "reinforce", {"baseline": "none"}, False, reinforce
    if (FOLDER / "rebar.yaml").exists():
        warnings.filterwarnings("ignore", "where received a uint8")
        yield "rebar", {"learned": False}, False, lambda: rebar(False)
        yield "rebar", {"learned": True}, False, lambda: rebar(True)


def of_reinmax(problem: DecoderProblem):
    from reinmax import reinmax

    yield "reinmax", {}, False, lambda: problem.backward(problem.objective(reinmax(problem.logits, 1.0)[0]))


LIBRARIES = {"torch": of_torch, "pyro": of_pyro, "pydrobert": of_pydrobert, "reinmax": of_reinmax}


def main() -> None:
    one_thread()
    torch.distributions.Distribution.set_default_validate_args(False)
    problem = DecoderProblem()
    print(f"{'library':<12}{'estimator':<44}{'hardmax, ms':>12}{'library, ms':>12}{'ratio':>8}")
    for library, cases in LIBRARIES.items():
        if find_spec(library) is None:
            print(f"{library:<12}not installed: pip install -c constraints.txt -e '.[libraries]'")
            continue
        for name, options, elbo, theirs in cases(problem):
            times = take_turns(hardmax(problem, name, elbo, **options), theirs, turns=TURNS)
            columns = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(ours / other for ours, other in times)
            what = ", ".join([name, *(f"{k}={v}".lower() for k, v in options.items()), *["ELBO"] * elbo])
            print(f"{library:<12}{what:<44}{next(columns):>12.2f}{next(columns):>12.2f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
