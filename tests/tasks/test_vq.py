"""Vector quantisation against enumeration, explicit rotation matrices and loops by hand."""

import math

import pytest
import torch

from hardmax.estimators import Exact, Reinforce, StraightThrough
from hardmax.gradients import measure, truth_of
from hardmax.tasks.data import Images
from hardmax.tasks.vq import VectorQuantised, copied, rotated
from helpers.commands import folders, started

SMALL = {"variables": 2, "categories": 3, "dimensions": 4, "encoder_widths": [5], "decoder_widths": [6]}
SHORT = ["task=vq", "task.variables=2", "task.categories=4", "steps=4", "batch_size=5", "measure.draws=4"]


def small(**options):
    torch.manual_seed(0)
    grey = torch.rand(40, 9)
    return VectorQuantised(**{**SMALL, **options}, data=Images(grey[:30], grey[:7], grey, "none")).double()


def loss(task, estimator, x):
    """As the training loop has it, per image."""
    task.nest(estimator)
    problem = task.problem(x)
    return estimator(problem.logits, problem.objective, problem.context) + problem.penalty


def gradients(value, task):
    return torch.autograd.grad(value.mean(), list(task.parameters()), allow_unused=True, materialize_grads=True)


def nearest_of(task, e):
    """The index of the nearest code of one vector, by looking at all."""
    return min(range(task.C), key=lambda j: float(((e - task.codebook[j]) ** 2).sum().detach()))


def test_logits_are_minus_squared_distances_over_the_temperature():
    task = small(temperature=0.5)
    e = task.vectors(task.data.held_out("valid"))
    expected = -(torch.cdist(e, task.codebook.expand(len(e), -1, -1)) ** 2) / 0.5
    assert torch.allclose(task.logits(e), expected, atol=1e-12)


def test_the_expected_cost_and_its_gradients_are_sums_over_all_codes():
    """Of the squared error, beside which come the codebook loss and the commitment of the nearest codes."""
    task, beta = small(temperature=0.7, commitment=0.3), 0.3
    x = task.data.held_out("valid")
    ours = loss(task, Exact(), x)
    e = task.encoder(x).view(-1, 2, 4)
    p = (-((e.unsqueeze(-2) - task.codebook) ** 2).sum(-1) / 0.7).softmax(-1)
    expected = 0
    for i in range(3):
        for j in range(3):
            seen = task.decoder(torch.cat([task.codebook[i], task.codebook[j]]))
            expected = expected + p[:, 0, i] * p[:, 1, j] * ((seen - x) ** 2).sum(-1)
    for b in range(len(x)):
        for k in range(2):
            code = task.codebook[nearest_of(task, e[b, k])]
            terms = ((code - e[b, k].detach()) ** 2).sum() + beta * ((e[b, k] - code.detach()) ** 2).sum()
            expected = expected + torch.nn.functional.one_hot(torch.tensor(b), len(x)) * terms
    assert torch.allclose(ours, expected, atol=1e-12)
    for a, b in zip(gradients(ours, task), gradients(expected, task), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_the_true_gradient_of_a_small_one_is_exact():
    task = small()
    problem = task.problem(task.measurement_batch(5))
    found = truth_of(task, problem)
    cost = Exact()(problem.logits, problem.objective)
    expected = torch.autograd.grad(cost.mean(), task.encoder_parameters())
    assert torch.allclose(found["encoder"].mean[0], torch.cat([g.flatten() for g in expected]), atol=1e-12)


# ---------------------------------------------------------------- gradients of the vectors


def rotation(u, q):
    """The matrix that turns unit vector u into q and leaves alone what is at right angles to both.

    As two reflections of Householder's: at the plane at right angles to u, then at that of the half way to q.
    """
    half = (u + q) / (u + q).norm()
    reflection = lambda n: torch.eye(len(n), dtype=n.dtype) - 2 * torch.outer(n, n)
    return reflection(half) @ reflection(u)


def test_a_rotated_gradient_is_that_of_a_constant_rotation_and_rescaling():
    torch.manual_seed(1)
    e = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    c, g = torch.randn(2, 20, 5, dtype=torch.float64)
    out = rotated(e, c)
    assert torch.equal(out, c)
    (found,) = torch.autograd.grad(out, e, g)
    for n in range(20):
        with torch.no_grad():
            R = rotation(e[n] / e[n].norm(), c[n] / c[n].norm())
            ratio = c[n].norm() / e[n].norm()
        assert torch.allclose(R @ R.T, torch.eye(5, dtype=R.dtype), atol=1e-12)
        assert float(torch.linalg.det(R)) == pytest.approx(1)
        assert torch.allclose(ratio * R @ e[n], c[n], atol=1e-12)
        assert torch.allclose(found[n], ratio * R.T @ g[n], atol=1e-12)
        # angles to the code are kept: what is along it stays along the vector
        assert torch.allclose(ratio * R.T @ c[n], ratio**2 * e[n], atol=1e-12)


def test_a_copied_gradient_is_the_same():
    e = torch.randn(3, 5, requires_grad=True)
    c, g = torch.randn(2, 3, 5)
    out = copied(e, c)
    assert torch.equal(out, c)
    assert torch.equal(torch.autograd.grad(out, e, g)[0], g)


def test_a_vector_that_is_its_code_gets_the_copied_gradient():
    e = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 5, dtype=torch.float64)
    assert torch.allclose(torch.autograd.grad(rotated(e, e.detach()), e, g)[0], g, atol=1e-12)


def test_vectors_of_no_direction_leave_gradients_finite():
    e = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    c = torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])  # of a vector 0, of an opposite one, a code 0
    out = rotated(e, c)
    assert torch.equal(out, c)
    assert torch.autograd.grad(out.sum(), e)[0].isfinite().all()


@pytest.mark.parametrize("gradient", ["copied", "rotated"])
def test_the_loss_is_van_den_oord_s_with_the_gradient_of_the_vectors(gradient):
    task, beta = small(gradient=gradient, commitment=0.3), 0.3
    x = task.data.held_out("valid")
    ours = loss(task, StraightThrough(), x)
    e = task.encoder(x).view(-1, 2, 4)
    codes = torch.stack([torch.stack([task.codebook[nearest_of(task, v)] for v in vectors]) for vectors in e])
    seen = codes.detach().requires_grad_()
    reconstruction = ((task.decoder(seen.flatten(1)) - x) ** 2).sum(-1)
    latent = ((codes - e.detach()) ** 2).sum((1, 2)) + beta * ((e - codes.detach()) ** 2).sum((1, 2))
    assert torch.allclose(ours, reconstruction + latent, atol=1e-12)
    (g,) = torch.autograd.grad(reconstruction.mean(), seen, retain_graph=True)
    if gradient == "rotated":
        for b in range(len(x)):
            for k in range(2):
                u, q = (v.detach() / v.detach().norm() for v in (e[b, k], codes[b, k]))
                ratio = codes[b, k].detach().norm() / e[b, k].detach().norm()
                g[b, k] = ratio * rotation(u, q).T @ g[b, k]
    expected = gradients(reconstruction + latent + (e * (g * len(x))).sum((1, 2)), task)
    for a, b in zip(gradients(ours, task), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_the_vectors_gradient_leaves_nothing_to_an_estimator():
    task = small(gradient="rotated")
    found = measure(task, StraightThrough(), task.problem(task.measurement_batch(5)), 4)
    assert found["logits/norm"] == found["encoder/norm"] == 0


# ---------------------------------------------------------------- the moving average


def test_codes_are_moving_averages_of_the_vectors_that_they_are_nearest_to():
    task, decay = small(gradient="copied", codebook_decay=0.9, categories=6), 0.9
    assert "codebook" not in dict(task.named_parameters())
    counts, sums = [1.0] * 6, [task.codebook[j].clone() for j in range(6)]
    for step in range(5):
        x = task.batch(torch.arange(step * 6, step * 6 + 6), torch.Generator())
        with torch.no_grad():
            vectors = [v for image in task.vectors(x) for v in image]
            own = [nearest_of(task, v) for v in vectors]
        for j in range(6):
            counts[j] = decay * counts[j] + (1 - decay) * own.count(j)
            sums[j] = decay * sums[j] + (1 - decay) * sum(v for v, o in zip(vectors, own, strict=True) if o == j)
        task.problem(task.measurement_batch(3))  # of a measurement, which changes nothing
        before = task.codebook.clone()
        value = loss(task, StraightThrough(), x).mean()
        assert torch.equal(task.codebook, before)
        value.backward()
        task.advance()
        assert torch.allclose(task.codebook, torch.stack([s / n for s, n in zip(sums, counts, strict=True)]))
        unused = [j for j in range(6) if j not in own]
        assert torch.equal(task.codebook[unused], before[unused])
    assert not torch.equal(task.codebook, small(codebook_decay=0.9, categories=6).codebook)


def test_a_moving_codebook_has_the_commitment_alone():
    x = small().data.held_out("valid")
    without, both = (loss(small(codebook_decay=decay), StraightThrough(), x) for decay in (0.9, None))
    task = small()
    e = task.vectors(x)
    codes = torch.stack([torch.stack([task.codebook[nearest_of(task, v)] for v in vectors]) for vectors in e])
    assert torch.allclose(both - without, (codes - e).square().sum((1, 2)), atol=1e-12)


def test_codes_move_along_with_training(tmp_path):
    from hardmax.harness.train import train

    options = ["estimator=straight_through", "task.gradient=copied", "task.codebook_decay=0.5", "measure.every=2"]
    state, cfg = started(*SHORT, *options)
    before = state.task.codebook.clone()
    train(state, cfg, lambda *_: None)
    assert not torch.equal(state.task.codebook, before)
    assert "weights" in state.task.state_dict()
    quiet, cfg = started(*SHORT, *options[:-1], "measure.every=0")
    train(quiet, cfg, lambda *_: None)
    assert torch.equal(state.task.codebook, quiet.task.codebook), "measuring changes nothing"


# ---------------------------------------------------------------- figures and refusals


def test_figures(monkeypatch):
    monkeypatch.setattr("hardmax.tasks.vq.AT_ONCE", 7)
    task = small(categories=5, temperature=1e-6)  # at which draws are the nearest codes
    x, found = task.data.held_out("test"), task.evaluate("test")
    used, error = [0] * 5, 0.0
    for image in x:
        codes = [nearest_of(task, v) for v in task.vectors(image)]
        for j in codes:
            used[j] += 1
        error += float((task.decoder(task.codebook[codes].flatten()) - image).square().mean().detach()) / len(x)
    assert found["reconstruction"] == pytest.approx(error)
    assert found["drawn"] == pytest.approx(error)
    assert found["codes"] == sum(n > 0 for n in used)
    shares = [n / sum(used) for n in used if n]
    assert found["perplexity"] == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares)))
    assert task.evaluate("valid").keys() == task.figures.keys() - {"loss"}
    assert "drawn" not in small(gradient="copied").evaluate("valid")


def test_drawn_codes_cost_what_reinforce_lowers():
    task = small(temperature=5.0)
    x = task.data.held_out("test")
    problem = task.problem(x)
    costs = [float(Reinforce()(problem.logits, problem.objective).detach().mean()) / 9 for _ in range(200)]
    torch.manual_seed(3)
    drawn = torch.tensor([task.evaluate("test")["drawn"] for _ in range(200)], dtype=torch.float64)
    costs = torch.tensor(costs, dtype=torch.float64)
    error = ((drawn.var() + costs.var()) / 200) ** 0.5
    assert abs(float(drawn.mean() - costs.mean())) < 4 * float(error)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["task.gradient=copied", "estimator=reinforce"],
            "task.gradient=copied asks no estimator: say estimator=straig",
        ),
        (["task.gradient=rotated", "estimator=stochastic_straight_through"], "not StochasticStraightThrough, which"),
        (["task.gradient=turned"], "task=vq: gradient must be one of estimator, copied, rotated, got 'turned'"),
        (["task.temperature=0"], "task=vq: temperature must be a number above 0, got 0"),
        (["task.commitment=-1"], "task=vq: commitment must be a number of at least 0, got -1"),
        (["task.codebook_decay=1"], "task=vq: codebook_decay must be from 0 up to but not including 1, got 1"),
        (["task.network=deep"], "task=vq: network must be one of perceptron, convolutional, got 'deep'"),
        (["estimator=vimco"], "VIMCO: what it estimates is no bound once the task adds a penalty outside it"),
        (["estimator=exact", "task.variables=20"], "limit is 4096 joint configurations, but 20 variables of 4"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(command, tmp_path, options, line):
    code, _, err = command(*SHORT, "wandb.mode=disabled", *options)
    assert (code, folders(tmp_path)) == (2, [])
    assert line in err
    assert len(err.splitlines()) == 1
