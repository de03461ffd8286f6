"""The mixture against enumeration, the exact likelihood, and the losses that the released code prints."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from hardmax.estimators import Exact, Reinforce, Softmax
from hardmax.tasks.mixture import Mixture

# Of each cluster, the component at which the released run starts: of the 10! there are, six start within 0.02 of its
# first loss, and this one ends at its last.
START = [8, 3, 7, 9, 0, 6, 1, 4, 2, 5]


def of_points(**options):
    torch.manual_seed(0)
    return Mixture(components=4, points=30, **options)


def test_released_losses():
    """github.com/Runjing-Liu120/RaoBlackwellizedSGD, GMM_optimization_experiments.ipynb: the first and the last of 500.

    Each is of the parameters before the step.
    """
    task = Mixture(posterior="table", weights="released", start=START)
    optimizer, estimator = torch.optim.SGD(task.parameters(), lr=0.01), Exact()
    everything, losses = torch.arange(200), []
    for _ in range(500):
        problem = task.problem(everything)
        loss = (estimator(problem.logits, problem.objective) + problem.penalty).sum()
        losses.append(float(loss.detach()))
        if len(losses) == 500:
            assert task.evaluate("valid")["total"] == pytest.approx(losses[-1], rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(35518.1484375, abs=0.02)
    assert losses[-1] == pytest.approx(917.870361328125, abs=0.005)


def test_the_likelihood_is_that_of_pytorch_s_mixture():
    task = of_points().double()
    task.y = task.y.double()
    normal = Independent(Normal(task.means.detach(), 1.0), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(4).double()), normal)
    found = task.evaluate("test")
    assert found["nll"] == pytest.approx(float(-mixture.log_prob(task.y).mean()))
    prior = float(-Normal(0.0, 8.0).log_prob(task.means.detach()).sum())
    assert found["total"] == pytest.approx(-30 * found["elbo"] + prior)


@pytest.mark.parametrize("weights", ["elbo", "released"])
@pytest.mark.parametrize("posterior", ["network", "table"])
def test_the_gap_is_the_divergence_from_the_posterior(posterior, weights):
    task = of_points(posterior=posterior, weights=weights).double()
    if posterior == "table":
        with torch.no_grad():
            task.table.normal_(generator=torch.Generator().manual_seed(1))
    found, index = task.evaluate("valid"), torch.arange(30)
    logits = task.logits(index).squeeze(1).detach()
    log_q = logits.log_softmax(-1)
    log_p = (-(task.y.unsqueeze(1) - task.means).square().sum(-1) / 2).log_softmax(-1)
    assert found["gap"] == pytest.approx(float((log_q.exp() * (log_q - log_p)).sum(-1).mean().detach()))
    problem = task.problem(index)
    total = (Exact()(problem.logits, problem.objective) + problem.penalty).sum()
    assert found["total"] == pytest.approx(total.item())


def test_released_logits_are_held_above_minus_eight():
    task = of_points(posterior="table", weights="released")
    with torch.no_grad():
        task.table.copy_(torch.tensor([-20.0, -7.0, 0.0, 20.0]))
    assert task.logits(torch.arange(30)).squeeze(1).unique(dim=0).tolist() == [[-8.0, -7.0, 0.0, 20.0]]


def test_relaxed_z_mix_the_means():
    task = of_points().double()
    problem = task.problem(torch.arange(5))
    mixed = problem.logits.softmax(-1).squeeze(1) @ task.means
    expected = (task.y[:5] - mixed).square().sum(-1) / 2
    found = Softmax()(problem.logits, problem.objective)
    assert torch.allclose(found - expected, torch.full_like(found, 1.8378770664093453))


def test_points_do_not_depend_on_the_run_and_start_apart():
    first, second = Mixture(drawn=3), Mixture(drawn=3)
    assert torch.equal(first.y, second.y)
    assert torch.equal(first.means, second.means)
    assert not torch.equal(first.y, Mixture(drawn=4).y)
    assert set(Mixture(posterior="table", start=list(range(10))).table.unique().tolist()) == {0.0, 3.0}


def test_extreme_logits_leave_figures_and_gradients_finite():
    task = of_points()
    with torch.no_grad():
        task.encoder[-1].bias.copy_(torch.tensor([1e4, -1e4, 0.0, 1e4]))
    assert torch.tensor(list(task.evaluate("test").values())).isfinite().all()
    problem = task.problem(torch.arange(30))
    loss = (Reinforce()(problem.logits, problem.objective) + problem.penalty).mean()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, [*task.parameters()]))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"components": 0}, "components must be an integer of at least 1, got 0"),
        ({"spread": 0}, "spread must be a number above 0, got 0"),
        ({"posterior": "free"}, "posterior must be one of network, table, got 'free'"),
        ({"weights": "map"}, "weights must be one of elbo, released, got 'map'"),
        ({"start": [0, 1]}, "start is for posterior=table, got posterior=network"),
        (
            {"start": [0, 1], "posterior": "table"},
            r"start must have each of the components 0 to 9 once, got \[0, 1\]",
        ),
    ],
)
def test_wrong_options_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        Mixture(**options)
