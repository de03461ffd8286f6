"""The quadratic form against enumeration, and gradients over all outcomes against released figures."""

import numpy as np
import pytest
import torch

from hardmax.estimators import MVE, ZGR, Exact, GumbelRao, Reinforce, ReinMax, StochasticStraightThrough
from hardmax.gradients import TrueGradient, measure, measure_outcomes, outcomes_of, truth_of
from hardmax.gradients.draws import Draws
from hardmax.gradients.outcomes import over_outcomes
from hardmax.tasks.quadratic_form import QuadraticForm
from helpers.commands import folders, rows_of, started

ONE = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("sizes", [(1, 4), (3, 3), (2, 5), (1, 1)])
def test_expected_cost_and_optimum_are_the_enumerated_ones(sizes):
    task = QuadraticForm(*sizes, drawn=3).double()
    problem = task.problem(torch.zeros(2))
    exact = Exact()(problem.logits, problem.objective)
    assert torch.allclose(task.expected_cost(problem.logits), exact)
    found = task.evaluate("test")
    assert found["cost"] == pytest.approx(exact[0].item())
    costs = Exact()(problem.logits, lambda z: problem.objective(z).exp())  # finite, positive: a mean bounds the lowest
    assert found["optimum"] <= float(costs[0].detach().log()) + 1e-9
    assert found["gap"] == pytest.approx(found["cost"] - found["optimum"])
    assert QuadraticForm(9, 3).evaluate("test").keys() == {"cost"}, "too many draws to look at"


def test_the_released_problem():
    """Of seed 0: the first numbers of PyTorch's generator, in the order Q, b, logits."""
    task = QuadraticForm(1, 4, drawn=0)
    torch.manual_seed(0)
    Q, b, logits = torch.randn(4, 4), torch.randn(4), torch.randn(4)
    assert torch.equal(task.A, Q.T @ Q)
    assert torch.equal(task.b, b)
    assert torch.equal(task.logits[0], logits)


def test_a_form_from_a_file(tmp_path, command):
    path = tmp_path / "form.npz"
    random = np.random.default_rng(0)
    arrays = {"A": random.normal(size=(6, 6)), "b": random.normal(size=6), "logits": random.normal(size=(2, 3))}
    np.savez(path, **arrays)
    task = QuadraticForm(2, 3, file=str(path))
    z = torch.eye(3)[[0, 2]]
    flat = z.flatten().numpy()
    assert float(task.objective(z)) == pytest.approx(flat @ arrays["A"] @ flat + arrays["b"] @ flat, rel=1e-6)
    assert torch.equal(task.logits, torch.tensor(arrays["logits"]).float())
    for wrong, line in (
        ({"b": np.zeros(5)}, r"an array b of \[6\] is expected, and there is one of \[5\]"),
        ({"b": np.full(6, np.nan)}, "b must have finite numbers"),
        ({"b": np.array(["x"] * 6)}, "b must have finite numbers"),
        ({"A": np.array([object()] * 36).reshape(6, 6)}, "is no .npz file of plain arrays"),
    ):
        np.savez(path, **{**arrays, **wrong})
        with pytest.raises(ValueError, match=line):
            QuadraticForm(2, 3, file=str(path))
    with pytest.raises(ValueError, match=r"file=/nowhere\.npz cannot be read: No such file or directory"):
        QuadraticForm(2, 3, file="/nowhere.npz")
    np.savez(path, A=arrays["A"])
    with pytest.raises(ValueError, match=r"an array b of \[6\] is expected, and there is none"):
        QuadraticForm(2, 3, file=str(path))
    path.write_text("no arrays")
    code, _, err = command("task=quadratic_form", f"task.file={path}", "steps=2")
    assert code == 2
    assert f"file={path} is no .npz file of plain arrays" in err
    assert len(err.splitlines()) == 1


# Squared bias and variance after rescaling, from github.com/James-Hooper123/
# Generalized-and-Optimal-Straight-Through-Estimators, Results/Bias_Variance, 4 categories, seed 0.
RELEASED = [
    (StochasticStraightThrough(), 0.2780821, 0.772404),
    (ZGR(), 5.284662e-14, 13.7856),
    (ReinMax(temperature=1.025025), 0.00117868, 12.1971),
    (ReinMax(temperature=1.975976), 0.05503867, 1.685797),
    (MVE(tau=1e7), 2.087219e-13, 13.34033),
    (MVE(tau=2.052638e-6), 0.278082, 0.772406),
]


@pytest.mark.parametrize(("estimator", "bias2", "variance"), RELEASED, ids=lambda value: type(value).__name__)
def test_released_biases_and_variances(estimator, bias2, variance):
    task = QuadraticForm(1, 4, drawn=0)
    found = measure_outcomes(task, estimator, task.problem(ONE), 1000)
    assert found["logits/rescaled_bias2"] == pytest.approx(bias2, rel=1e-5, abs=1e-9)
    assert found["logits/rescaled_variance"] == pytest.approx(variance, rel=1e-5)
    assert found["draws"] == 8, "each outcome twice, which shows that there is no other noise"
    assert found["evaluations"] == 1


def test_outcomes_are_what_many_draws_tend_to():
    """Within 5 standard errors of 20,000 draws, seeded; with other noise than the draw's, both have errors."""
    task = QuadraticForm(2, 3, drawn=1)
    problem = task.problem(ONE)
    for estimator in (Reinforce(samples=2), ReinMax(temperature=1.5), GumbelRao(noises=2, temperature=0.5)):
        torch.manual_seed(0)
        exact = measure_outcomes(task, estimator, problem, 3000)
        drawn = measure(task, estimator, problem, 20_000)
        for where in ("logits", "encoder"):
            for name in ("norm", "variance", "work_variance", "bias2", "mse", "cosine", "cosine_mean", "snr"):
                key, error = f"{where}/{name}", drawn[f"{where}/{name}_error"]
                slack = 1.5 if isinstance(estimator, GumbelRao) else 1.0
                assert abs(exact[key] - drawn[key]) < 5 * slack * error + 1e-6, (type(estimator).__name__, key)
        assert exact["evaluations"] == drawn["evaluations"]
        assert abs(exact["logits/dead_per_draw"] - drawn["logits/dead_per_draw"]) < 0.02
        assert exact["truth/exact"] == 0


def test_the_noise_of_repeated_outcomes_is_debiased():
    """Of an unbiased estimator with noise, the mean of many small measurements' bias2 is 0 within 4 standard errors."""
    task = QuadraticForm(1, 3, drawn=2)
    problem, truth = task.problem(ONE), truth_of(task, task.problem(ONE))
    torch.manual_seed(0)
    noisy = GumbelRao(noises=1, temperature=1.0)
    reference = measure_outcomes(task, noisy, problem, 20_000, truth)
    few = [measure_outcomes(task, noisy, problem, 5, truth) for _ in range(400)]
    for name in ("bias2", "variance"):
        found = torch.tensor([each[f"logits/{name}"] for each in few])
        assert abs(found.mean() - reference[f"logits/{name}"]) < 4 * found.std() / 20, name


@pytest.mark.parametrize("estimator", [ReinMax(), GumbelRao()], ids=["exact", "noisy"])
def test_draws_are_what_was_made(monkeypatch, estimator):
    """The time that measuring takes is divided by their number."""
    made, make = [], Draws.make
    monkeypatch.setattr(Draws, "make", lambda self, m: (made.append(m), make(self, m))[1])
    task = QuadraticForm(1, 3, drawn=2)
    found = measure_outcomes(task, estimator, task.problem(ONE), 7)
    assert made[0] == 1, "which counts the outcomes"
    assert found["draws"] == sum(made[1:])


def test_beside_a_truth_of_0_or_one_that_is_not_exact():
    weight, g = torch.tensor([0.25, 0.75]).double(), torch.tensor([[[1.0, 2.0], [0.0, 0.0]]] * 2).double()
    exact, reference = (TrueGradient("exact", torch.tensor([[1.0, 1.0]])) for _ in range(2))
    none = over_outcomes(weight, g, TrueGradient("exact", torch.zeros(1, 2)))
    undefined = ("relative_bias", "cosine", "cosine_mean", "rescaled_bias2", "rescaled_variance")
    assert all(none[name].isnan() for name in undefined)
    assert none["true_norm"] == 0
    assert none["bias2"] == none["norm"].square()
    known = over_outcomes(weight, g, exact)
    assert known["cosine"] == pytest.approx(0.25 * 3 / 10**0.5), "a gradient of zero counts 0"
    reference.noise = reference.noise + 0.1
    for name in ("bias2", "mse"):
        assert over_outcomes(weight, g, reference)[name] == pytest.approx(known[name] - 0.1)


def test_outcomes_of_several_layers_are_joint_ones():
    sizes = ["task.variables=1", "task.categories=3", "task.encoder_widths=[4]", "task.decoder_widths=[4]"]
    state, _ = started("estimator=reinforce", "task=dvae", "task.layers=2", *sizes, "batch_size=1")
    problem = state.task.problem(state.measuring.batch)
    found = measure_outcomes(state.task, state.estimator, problem, 2)
    assert found["draws"] == 18
    for where in ("logits", "encoder"):
        assert found[f"{where}/bias2"] < 1e-6 * found[f"{where}/true_norm"] ** 2, "REINFORCE has none"
    state, _ = started("estimator=reinforce", "task=generation", "task.length=2", "batch_size=1")
    with pytest.raises(ValueError, match="the objective itself depends on the encoder's parameters"):
        outcomes_of(state.task, state.estimator, state.task.problem(state.measuring.batch))


def test_too_many_outcomes_are_refused():
    task = QuadraticForm(2, 3)
    assert outcomes_of(task, Reinforce(samples=2), task.problem(ONE)) == 3**4
    with pytest.raises(ValueError, match="batch_size must be 1, got 2"):
        outcomes_of(task, Reinforce(), task.problem(torch.zeros(2)))
    with pytest.raises(ValueError, match=r"Reinforce has 3\.49e\+9 outcomes, and at most 100,000 are"):
        outcomes_of(QuadraticForm(20, 3), Reinforce(samples=1), QuadraticForm(20, 3).problem(ONE))
    for K, C, count in ((64, 2, r"1\.84e\+19"), (700, 3, r"9\.66e\+333")):
        with pytest.raises(ValueError, match=rf"Reinforce has {count} outcomes, and at most 100,000 are"):
            outcomes_of(QuadraticForm(K, C), Reinforce(samples=1), QuadraticForm(K, C).problem(ONE))


def test_an_axis_of_temperatures_in_a_run(command, tmp_path):
    axes = "{mve:{tau:[0.5,2.0]}},{gumbel_rao:{noises:[1,2],temperature:[0.5]}}"
    rivals = f"measure.rivals=[zgr,{axes},{{nvil:{{widths:[4,3]}}}},{{nvil:{{widths:[[],[5]]}}}}]"
    of_run = ["task=quadratic_form", "steps=1", "measure.every=1", "measure.draws=2", "measure.outcomes=true", rivals]
    code, _, err = command(*of_run, "batch_size=1", "estimator=stochastic_straight_through")
    assert code == 0, err
    (folder,) = folders(tmp_path)
    names = {key.split("/")[2] for key in rows_of(folder)[0] if key.startswith("gradient/rivals/")}
    axis = {f"gumbel_rao(noises={n},temperature=0.5)" for n in (1, 2)}
    axis |= {f"nvil(widths=[{widths}])" for widths in ("4, 3", "", "5")}  # a list of lists, as one is its default
    assert names == {"zgr", "mve(tau=0.5)", "mve(tau=2.0)", *axis}
    code, _, err = command(*of_run, "batch_size=2", "fresh=true")
    assert code == 2
    assert "measure.outcomes=true: the outcomes of one example are gone through, so batch_size must be 1, got 2" in err
