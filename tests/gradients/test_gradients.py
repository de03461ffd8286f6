"""Gradient statistics against their definitions, and softmax's dead gradients."""

import itertools
import math

import pytest
import torch

from hardmax.estimators import ARSM, CARMS, Estimator, Exact, Rebar, Reinforce, Softmax, StraightThroughGumbelSoftmax
from hardmax.gradients import (
    BLOCKS,
    WHERE,
    Draws,
    Moments,
    RunningVariance,
    TrueGradient,
    add_draws,
    forked_random,
    measure,
    noise_by_source,
    truth_of,
)
from hardmax.tasks.base import Problem, Task
from hardmax.tasks.dvae import DiscreteVAE
from hardmax.tasks.toy import Toy
from helpers.cases import in_part


def moments_of(g, truth=None, parts=(3, 1, 4), **options):
    """Draws ``[M, B, D]`` in parts of several sizes, to one block after the other."""
    moments = Moments(truth, **options)
    for n, part in enumerate(g.split([*parts, *[2] * ((len(g) - sum(parts)) // 2)])):
        moments.add(part.clone(), n % BLOCKS)
    return moments


def brute(g, truth, noise=0.0):
    """The design's table, word by word: draws ``[M, B, D]``, truth ``[B, D]`` with squared error ``noise``."""
    mean, M = g.mean(0), len(g)
    V = g.var(0).sum(-1)
    off, norm = (mean - truth).square().sum(-1), (truth.square().sum(-1) - noise).sqrt()
    dead = lambda size: (size <= 1e-12 * size.amax(-1, keepdim=True)).double().mean(-1)
    bias2 = off - V / M - noise
    found = {
        "norm": mean.norm(dim=-1),
        "rms_norm": g.square().sum(-1).mean(0).sqrt(),
        "variance": V,
        "variance_mean": V / g.shape[-1],
        "snr": (mean.square().sum(-1) - V / M).clamp(min=0) / V,
        "dead": dead(g.abs().amax(0)),
        "dead_per_draw": dead(g.abs()).mean(0),
        "true_norm": norm.square().mean().sqrt(),
        "bias2": bias2,
        "relative_bias": bias2.mean().sign() * (bias2.mean().abs() / norm.square().mean()).sqrt(),
        "mse": (g - truth).square().sum(-1).mean(0) - noise,
        "cosine": (g * truth).sum(-1).div(g.norm(dim=-1).clamp(min=1e-30)).mean(0) / norm,
        "cosine_mean": (mean * truth).sum(-1) / mean.norm(dim=-1) / norm,
    }
    return {k: float(v.mean()) for k, v in found.items()}


def without_errors(found):
    return {k: v for k, v in found.items() if not k.endswith("_error")}


def test_statistics_are_their_definitions():
    torch.manual_seed(0)
    g = torch.randn(50, 4, 6, dtype=torch.float64) + 0.3
    truth = torch.full((4, 6), 0.25, dtype=torch.float64)
    found = without_errors(moments_of(g, TrueGradient("exact", truth)).statistics())
    z = (g.mean(0) - truth) / (g.var(0) / 50).sqrt()
    assert found == pytest.approx(brute(g, truth) | {"worst_z": float(z.abs().max())})


def test_statistics_beside_a_reference():
    """Its own noise is taken off the squared bias, the squared error and the squared norm."""
    torch.manual_seed(0)
    g = torch.randn(50, 4, 6, dtype=torch.float64) + 0.3
    other = 2 * torch.randn(200, 4, 6, dtype=torch.float64) + 0.9
    found = moments_of(g, TrueGradient("other", moments_of(other, coordinates=True))).statistics()
    z = (g.mean(0) - other.mean(0)) / (g.var(0) / 50 + other.var(0) / 200).sqrt()
    expected = brute(g, other.mean(0), other.var(0).sum(-1) / 200) | {"worst_z": float(z.abs().max())}
    assert without_errors(found) == pytest.approx(expected)


@pytest.mark.parametrize("reference", [0, 400])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_standard_errors_are_the_spread_of_repeated_measurements(bias, reference):
    """Over 120 measurements of 40 draws with tails: the root mean square of every error beside the actual spread.

    Their ratio is known to about 7 %; errors of figures that are quadratic in the noise are on the safe side.
    """
    torch.manual_seed(1)
    mean = torch.tensor([[0.5, -0.2, 1.0], [0.1, 0.3, -0.4]], dtype=torch.float64)
    make = lambda n: mean + torch.randn(n, 2, 3, dtype=torch.float64) * torch.rand(n, 2, 1, dtype=torch.float64)
    results = []
    for _ in range(120):
        truth = (
            TrueGradient("r", moments_of(make(reference), parts=[20] * 20, coordinates=True))
            if reference
            else TrueGradient("exact", mean)
        )
        results.append(moments_of(make(40) * torch.tensor(1 + bias), truth).statistics())
    for name in ("norm", "rms_norm", "variance", "variance_mean", "snr", "bias2", "mse", "cosine", "cosine_mean"):
        values = torch.tensor([r[name] for r in results], dtype=torch.float64)
        errors = torch.tensor([r[f"{name}_error"] for r in results], dtype=torch.float64)
        ratio = errors.square().mean().sqrt() / values.std()
        high = {"cosine_mean": 2, "bias2": 1.4}.get(name, 1.25)
        assert 0.8 < ratio < high, f"{name}: errors of {errors.square().mean().sqrt():.3g}, spread {values.std():.3g}"
        if name in ("bias2", "mse", "variance"):
            expected = {"bias2": bias**2 * mean.square().sum(-1).mean(), "variance": (1 + bias) ** 2}
            expected["mse"] = expected["bias2"] + expected["variance"]
            assert abs(values.mean() - expected[name]) < 3.5 * values.std() / 120**0.5, name


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_the_error_of_a_squared_bias_is_no_smaller_for_a_lucky_mean(off):
    """Of one coordinate and M draws, with their mean at the truth or a standard error off: V / M at least."""
    torch.manual_seed(0)
    g = torch.randn(100, 1, 1, dtype=torch.float64)
    error = (g.var() / 100).sqrt()
    g = g - g.mean() + off * error
    found = moments_of(g, TrueGradient("exact", torch.zeros(1, 1, dtype=torch.float64))).statistics()
    assert found["bias2"] == pytest.approx(float((off**2 - 1) * error**2))
    assert found["bias2_error"] > 0.95 * float(error**2)


def test_variance_does_not_cancel():
    torch.manual_seed(0)
    g = 1e6 + torch.randn(50, 1, 3, dtype=torch.float64)
    assert moments_of(g).statistics()["variance"] == pytest.approx(float(g.var(0).sum()))
    g = torch.randn(50, 1, 3)
    g[0] += 1e5
    found = moments_of(g).statistics()["variance"]
    assert found == pytest.approx(float(g.double().var(0).sum()), rel=1e-5), "nor beside a first draw far off"
    same = torch.full((50, 1, 3), 0.1).expand(50, 1, 3)
    statistics = moments_of(same).statistics()
    assert statistics["variance"] == 0
    assert statistics["snr"] is None, "undefined is null, never 0"
    assert statistics["snr_error"] is None


def test_what_is_undefined_is_none():
    g = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    found = moments_of(g, TrueGradient("exact", torch.zeros(1, 2)), parts=(1, 1)).statistics()
    undefined = ("relative_bias", "relative_bias_error", "cosine", "cosine_mean", "variance_error")
    assert all(found[name] is None for name in undefined)
    found = moments_of(g, TrueGradient("exact", torch.tensor([[1.0, 0.0]])), parts=(1, 1)).statistics()
    assert found["cosine"] == 0.5, "a gradient of zero counts 0"


class Fixed(Task):
    """Three given logits, and a cost that is linear in z."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([logits]))

    def problem(self, batch):
        return Problem(
            self.logits.expand(len(batch), 1, 3), lambda z: (z * torch.tensor([1.0, -2.0, 0.5])).sum((-2, -1))
        )

    def encoder_parameters(self):
        return [self.logits]


class HardMaximum(Estimator):
    """The largest logit itself: its gradient reaches the chosen category alone."""

    target, unbiased, differentiates_objective = "mode", False, False

    def estimate(self, logits, objective, context):
        return logits.max(-1).values.sum(-1)


@pytest.mark.parametrize(
    ("estimator", "logits", "dead"),
    [
        (HardMaximum(), (1.0, 2.0, 3.0), 2 / 3),
        (Softmax(), (1.0, 2.0, 3.0), 0.0),
        (Softmax(), (0.0, 1.0, 40.0), 1 / 3),
        (Softmax(), (-1e3, 1.0, 1e4), 1.0),
    ],
)
def test_dead_components_of_hard_and_saturated_maxima(estimator, logits, dead):
    task = Fixed(logits)
    found = measure(task, estimator, task.problem(torch.zeros(2)), 5)
    assert found["logits/dead"] == pytest.approx(dead)
    assert found["logits/dead_per_draw"] == pytest.approx(dead)


def small_task(**options):
    """A discrete VAE of two variables of three categories, whose nine configurations can be enumerated."""
    torch.manual_seed(0)
    return DiscreteVAE(2, 3, [8], [8], bound_samples=1, **options)


def gradients_by_loop(task, estimator, batch, draws):
    """A plain backward pass for each draw: gradients ``[M, B, D]`` to the logits, ``[M, 1, P]`` to the encoder."""
    found = [], []
    for _ in range(draws):
        problem = task.problem(batch)
        cost = estimator(problem.logits, problem.objective, problem.context, problem.log_q).mean()
        to_logits, *to_encoder = torch.autograd.grad(cost, [problem.logits, *task.encoder_parameters()])
        found[0].append(len(batch) * to_logits.flatten(1))
        found[1].append(torch.cat([g.flatten() for g in to_encoder]).unsqueeze(0))
    return [torch.stack(x).double() for x in found]


def exact_by_hand(task, batch):
    """Gradients of the sum over all configurations of probability times cost: ``[B, D]`` and ``[1, P]``."""
    problem, total = task.problem(batch), 0.0
    for index in itertools.product(range(3), repeat=2):
        z = torch.nn.functional.one_hot(torch.tensor(index), 3).float().expand(1, *problem.logits.shape)
        log_p = (problem.logits.log_softmax(-1) * z[0]).sum((-2, -1))
        cost = problem.objective(z)[0].detach() + (log_p.detach() if problem.log_q else 0)
        total = total + (log_p.exp() * cost).sum()
    to_logits, *to_encoder = torch.autograd.grad(total, [problem.logits, *task.encoder_parameters()])
    return to_logits.flatten(1), torch.cat([g.flatten() for g in to_encoder]).unsqueeze(0) / len(batch)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_enumeration_knows_the_gradient(kl):
    task = small_task(kl=kl)
    batch = task.measurement_batch(4)
    problem = task.problem(batch)
    truth = truth_of(task, problem)
    for where, by_hand in zip(WHERE, exact_by_hand(task, batch), strict=True):
        assert (truth[where].name, truth[where].draws) == ("exact", 0)
        torch.testing.assert_close(truth[where].mean[0].float(), by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "estimator", in_part([Reinforce(2, "leave_one_out"), StraightThroughGumbelSoftmax(0.7), Rebar(), Softmax()], 2)
)
def test_measuring_agrees_with_a_loop_of_backward_passes(estimator):
    """Every figure, to the logits and to the encoder, within six standard errors, themselves from ten blocks."""
    task = small_task()
    batch = task.measurement_batch(4)
    problem = task.problem(batch)
    estimator.eval()
    torch.manual_seed(2)
    by_loop = gradients_by_loop(task, estimator, batch, 800)
    found = measure(task, estimator, problem, 800)
    for where, g, truth in zip(WHERE, by_loop, exact_by_hand(task, batch), strict=True):
        for name, value in brute(g, truth.double()).items():
            ours, error = found[f"{where}/{name}"], found.get(f"{where}/{name}_error") or 0.0
            if name == "snr" and ours is None:
                assert found[f"{where}/variance"] == 0
            elif name != "relative_bias" or ours**2 > 0.01:  # else the sign is the draws'
                assert ours == pytest.approx(value, abs=6 * 2**0.5 * error, rel=1e-3), f"{where}/{name}"


SOME = [Reinforce(4, "leave_one_out"), StraightThroughGumbelSoftmax()]
OTHERS = [Reinforce(), ARSM(), Rebar(), Exact()]


@pytest.mark.parametrize(
    ("reference", "estimator"),
    [
        *in_part([(None, each) for each in SOME + OTHERS], 2),
        *[(CARMS(4), each) for each in SOME],
        *[pytest.param(CARMS(4), each, marks=pytest.mark.long) for each in OTHERS],
    ],
)
def test_unbiased_estimators_measure_no_bias(estimator, reference):
    """Over 25 seeds the mean of the debiased squared bias is within 3 standard errors of 0, or else there is a bias."""
    task = small_task()
    batch = task.measurement_batch(4)
    problem = task.problem(batch)
    measured, truth = {where: [] for where in WHERE}, truth_of(task, problem)
    for seed in range(25):
        with forked_random(torch.device("cpu"), seed):
            if reference:
                moments = {where: Moments(coordinates=True) for where in WHERE}
                add_draws(Draws(task, reference, problem), moments, 60)
                truth = {where: TrueGradient("reference", x) for where, x in moments.items()}
            found = measure(task, estimator, problem, 30, truth)
        for where in WHERE:
            measured[where].append(found[f"{where}/bias2"])
    for where, values in measured.items():
        values = torch.tensor(values, dtype=torch.float64)
        scale = exact_by_hand(task, batch)[WHERE.index(where)].square().sum(-1).mean()
        error = values.std() / 25**0.5 + 1e-9 * scale  # rounding
        assert (abs(values.mean()) < 3 * error) == estimator.unbiased, f"{where}: {values.mean()} ± {error}"


def test_variance_to_the_encoder_falls_with_the_batch():
    toy = Toy(variables=2, categories=4, objective="quadratic")
    found = measure(toy, Reinforce(samples=2, baseline="leave_one_out"), toy.problem(toy.measurement_batch(20)), 2000)
    assert found["encoder/variance"] == pytest.approx(found["logits/variance"] / 20, rel=0.1)


@pytest.mark.parametrize(
    ("estimator", "rows", "differentiated"),
    [
        (Reinforce(4, "leave_one_out"), 4, 0),
        (Reinforce(baseline="greedy"), 2, 0),
        (ARSM(), 4, 0),
        (Exact(), 9, 0),
        (StraightThroughGumbelSoftmax(), 1, 1),
        (Rebar(), 2, 1),
    ],
)
def test_costs_are_counted(estimator, rows, differentiated):
    task = small_task()
    found = measure(task, estimator, task.problem(task.measurement_batch(4)), 20)
    assert (found["evaluations"], found["objective_gradients"], found["draws"]) == (rows, differentiated, 20)
    assert found["truth/exact"] == 0
    for where in WHERE:
        assert found[f"{where}/work_variance"] == pytest.approx(rows * found[f"{where}/variance"])


def test_draws_go_on_until_a_precision_is_reached():
    task = small_task()
    problem = task.problem(task.measurement_batch(4))
    found = measure(task, Reinforce(4, "leave_one_out"), problem, 20, precision=0.05)
    assert 20 < found["draws"] <= 2000
    for where in WHERE:
        assert found[f"{where}/variance_error"] <= 0.05 * found[f"{where}/variance"]
    assert measure(task, Reinforce(), problem, 2, precision=1e-9)["draws"] == 200, "a hundred times as many at most"
    assert measure(task, Softmax(), problem, 20, precision=0.05)["draws"] == 20


@pytest.mark.long
@pytest.mark.parametrize("kl", in_part(["sampled", "analytic"], 2))
def test_whose_noise_it_is(kl):
    """Estimator and minibatch noise, of three draws on each of 300 batches, add up to that of single draws on 1000."""
    task, estimator, generator = small_task(kl=kl), Reinforce(2, "leave_one_out"), torch.Generator().manual_seed(5)
    with torch.no_grad():
        task.encoder[0].weight.mul_(8)  # so that examples differ

    def batches(count):
        for _ in range(count):
            yield task.batch(torch.randint(task.examples, (4,), generator=generator), generator)

    torch.manual_seed(6)
    found = noise_by_source(task, estimator, batches(300), 3)
    assert (found["batches"], found["draws_per_batch"]) == (300, 3)
    singles, within = [], []
    for batch in batches(1000):
        problem = task.problem(batch)
        cost = estimator(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty
        parts = torch.autograd.grad(cost.mean(), task.encoder_parameters())
        singles.append(torch.cat([g.flatten() for g in parts]).double())
    for batch in batches(50):
        within.append(gradients_by_loop(task, estimator, batch, 10)[1].var(0).sum())
    singles, within = torch.stack(singles), torch.stack(within)
    spread = (singles - singles.mean(0)).square().sum(-1)
    for name, value, error in (
        ("total_noise", spread.sum() / 999, spread.std() / 1000**0.5),
        ("estimator_noise", within.mean(), within.std() / 50**0.5),
    ):
        difference, error = found[name] - float(value), math.hypot(found[f"{name}_error"], error)
        assert abs(difference) < 4 * error, f"{name}: {found[name]} is not {value} ± {error}"
    assert found["minibatch_noise"] > 5 * found["minibatch_noise_error"], "there is some"
    assert found["total_noise"] == pytest.approx(found["estimator_noise"] + found["minibatch_noise"])


def test_one_batch_over_and_over_has_no_minibatch_noise():
    task = small_task()
    found = noise_by_source(task, Reinforce(2, "leave_one_out"), itertools.repeat(task.measurement_batch(4), 200), 3)
    assert abs(found["minibatch_noise"]) < 4 * found["minibatch_noise_error"]
    found = noise_by_source(task, Softmax(), [task.measurement_batch(4), task.measurement_batch(8)[4:]], 2)
    assert found["estimator_noise"] == 0
    assert found["minibatch_noise"] > 0


def test_running_moments_are_those_of_the_papers():
    parameter, decay = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)), 0.9
    running, first, second = RunningVariance([parameter], decay), torch.zeros(3), torch.zeros(3)
    assert running.statistics()["running_variance"] is None
    torch.manual_seed(0)
    for step in range(1, 50):
        parameter.grad = 5 + torch.randn(3, dtype=torch.float64)
        running.update()
        first = decay * first + (1 - decay) * parameter.grad
        second = decay * second + (1 - decay) * parameter.grad**2
        debias = 1 - decay**step
    expected = second / debias - (first / debias) ** 2
    found = running.statistics()
    assert found["running_variance"] == pytest.approx(float(expected.sum()))
    assert found["running_variance_mean"] == pytest.approx(float(expected.mean()))


class Deep(Task):
    """Two layers: the encoder's second half makes logits *within* the objective."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = torch.nn.Linear(3, 6), torch.nn.Linear(6, 4)
        self.below = Reinforce(2, "leave_one_out")
        self.weight = torch.nn.Parameter(torch.randn(4))

    def problem(self, batch):
        def objective(z):
            below = self.second(z.flatten(-2)).unflatten(-1, (2, 2))
            return self.below(below, lambda y: ((y.flatten(-2) @ self.weight) - z[..., 0, 0]) ** 2)

        return Problem(self.first(batch).unflatten(-1, (2, 3)), objective)

    def encoder_parameters(self):
        return [*self.first.parameters(), *self.second.parameters()]


def test_parameters_within_the_objective_are_measured_too():
    task, batch, estimator = Deep(), torch.randn(5, 3), Reinforce(2, "leave_one_out")
    torch.manual_seed(1)
    by_loop = gradients_by_loop(task, estimator, batch, 500)
    moments = {where: Moments() for where in WHERE}
    problem = task.problem(batch)
    add_draws(Draws(task, estimator, problem), moments, 500)
    for where, g in zip(WHERE, by_loop, strict=True):
        found, mean = moments[where].statistics(), g.mean(0)
        assert found["variance"] == pytest.approx(float(g.var(0).sum(-1).mean()), abs=6 * found["variance_error"])
        off = moments[where].replicates().mean[0] - mean
        expected = 2 * g.var(0) / 500
        assert (off.square() / expected.clamp(min=1e-12)).mean() < 1.5, where
    assert truth_of(task, problem) is None, "an objective that draws cannot be enumerated"


def test_measuring_is_repeatable_and_leaves_no_trace():
    toy, estimator = Toy(2, 4), Reinforce()
    estimator(toy.problem(torch.zeros(3)).logits, toy.objective)
    estimator.advance()
    before = [v.clone() for v in (*toy.state_dict().values(), *estimator.state_dict().values(), torch.get_rng_state())]
    results = []
    for _ in range(2):
        with forked_random(torch.device("cpu"), 1, 2):
            results.append(measure(toy, estimator, toy.problem(toy.measurement_batch(3)), 10))
    assert results[0] == results[1]
    after = [*toy.state_dict().values(), *estimator.state_dict().values(), torch.get_rng_state()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert estimator.training
    assert not estimator.running.pending
    assert all(p.grad is None for p in toy.parameters())


def test_memory_of_measuring_is_bounded():
    """No evaluation is larger than one that the estimator asks for anyway, or than four times the cache."""
    toy = Toy(variables=4, categories=5)
    rows = []
    cost = toy.objective
    toy.objective = lambda z: rows.append(z.numel()) or cost(z)
    measure(toy, Exact(), toy.problem(toy.measurement_batch(50)), 20)
    assert rows[1:] == [5**4 * 50 * 20] * 20, "the first asks what the objective depends on"
    rows.clear()
    measure(toy, Reinforce(), toy.problem(toy.measurement_batch(50)), 10_000)
    assert 2**18 < max(rows) <= 2**19


@pytest.mark.parametrize(("width", "draws"), [(10, 65), (1_000_000, 16), (100_000_000, 1)])
def test_gradients_of_large_encoders_are_drawn_fewer_at_a_time(width, draws):
    """And no more than 64 MB of them at a time, unless a single one has more."""
    task = DiscreteVAE(2, 2, [4], [4])
    task.encoder_parameters = lambda: [torch.nn.Parameter(torch.zeros(1)).expand(width)]
    problem = Problem(torch.zeros(2000, 2, 2), lambda z: z.sum((-2, -1)))
    assert Draws(task, Softmax(), problem).at_most() == draws


def test_chunked_products_are_a_loop_of_backward_passes():
    torch.manual_seed(0)
    task, estimator = DiscreteVAE(3, 4, [8], [8], bound_samples=1), Softmax(0.5)
    batch = task.measurement_batch(5)
    problem = task.problem(batch)
    found = measure(task, estimator, problem, 7)
    cost = estimator(problem.logits, problem.objective).mean()
    g = torch.cat([x.flatten() for x in torch.autograd.grad(cost, task.encoder_parameters())])
    assert found["encoder/norm"] == pytest.approx(float(g.norm()), rel=1e-5)
    assert found["encoder/variance"] == 0, "no noise, no variance"
