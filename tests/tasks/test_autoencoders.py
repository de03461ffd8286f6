"""Autoencoders of one and two layers, learned priors and pinned logits, against enumeration."""

import itertools
import subprocess
import sys

import pytest
import torch
from PIL import Image

from hardmax.estimators import ARSM, Exact, GumbelSoftmax, Reinforce, StraightThroughGumbelSoftmax
from hardmax.gradients import forked_random, measure
from hardmax.harness.optimizers import AdamWTwice
from hardmax.harness.schedules import WarmupCosine
from hardmax.harness.train import train
from hardmax.tasks.data import Images
from hardmax.tasks.dvae import DiscreteVAE, grid
from hardmax.tasks.vae import kl_from, kl_from_uniform, perceptron
from helpers.cases import in_part
from helpers.commands import ROOT, SHORT, folders, rows_of, started

OPTIONS = [
    {"layers": layers, "kl": kl, "prior": prior, "pinned": pinned}
    for layers, kl, prior, pinned in itertools.product((1, 2), ("analytic", "sampled"), ("uniform", "learned"), (0, 1))
]


def small(layers=2, kl="analytic", prior="learned", pinned=True, K=2, C=2, **options):
    torch.manual_seed(0)
    grey = torch.rand(30, 9)
    vae = DiscreteVAE(K, C, [4], [4], kl, 3, layers, "tanh", prior, bool(pinned), Images(grey, grey, grey), **options)
    vae.double()
    if vae.prior is not None:
        torch.nn.init.normal_(vae.prior)
    for p in vae.parameters():
        p.data.mul_(2)
    return vae


def nested(vae, estimator):
    vae.nest(estimator.double())
    return estimator


def codes(vae):
    every = torch.cartesian_prod(*[torch.arange(vae.C)] * vae.K).reshape(-1, vae.K)
    return torch.nn.functional.one_hot(every, vae.C).double()


def log_p(logits, z):
    """log-probability of one-hot z under the logits, term by term."""
    return torch.stack([logits.log_softmax(-1)[..., k, z[k].argmax()] for k in range(len(z))]).sum(0)


def negative_elbo(vae, x):
    """By a loop over all configurations of all layers: ``[B]``."""
    prior = torch.zeros(vae.K, vae.C) if vae.prior is None else vae.prior
    q = vae.logits(vae.features(x))
    total = 0.0
    for z in codes(vae):
        log_q = log_p(q, z)
        nats = vae.reconstruction(z.expand(len(x), *z.shape), x)
        if not vae.nested:
            total = total + log_q.exp() * (nats + log_q - log_p(prior, z))
            continue
        higher_q = vae.as_logits(vae.higher_encoders[0](z.flatten()))
        for higher in codes(vae):
            log_r = log_p(higher_q, higher)
            down = vae.as_logits(vae.higher_decoders[0](higher.flatten()))
            rest = log_r - log_p(down, z) - log_p(prior, higher)
            total = total + (log_q + log_r).exp() * (nats + log_q + rest)
    return total


def loss(vae, estimator, x):
    problem = vae.problem(x)
    return estimator(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty


def gradients(vae, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(vae.parameters()))])


@pytest.mark.parametrize("options", OPTIONS)
def test_loss_and_every_gradient_are_those_of_the_enumerated_elbo(options):
    vae = small(**options)
    x = vae.held_out("valid")[:3]
    exact = negative_elbo(vae, x)
    ours = loss(vae, nested(vae, Exact()), x)
    assert torch.allclose(ours, exact)
    assert torch.allclose(gradients(vae, ours.mean()), gradients(vae, exact.mean()), atol=1e-10)


@pytest.mark.parametrize(
    ("estimator", "kl"),
    in_part(
        itertools.product([Reinforce(2, "leave_one_out"), ARSM(), Reinforce(1, "batch")], ["analytic", "sampled"]), 3
    ),
)
def test_two_layers_of_an_unbiased_estimator_are_unbiased(estimator, kl):
    vae = small(kl=kl, C=3)
    x = vae.held_out("valid")[:1].expand(1000, -1)
    exact = gradients(vae, negative_elbo(vae, x[:1]).mean())
    torch.manual_seed(1)
    estimator = nested(vae, estimator)
    draws = torch.stack([gradients(vae, loss(vae, estimator, x).mean()) for _ in range(40)])
    error = draws.std(0) / 40**0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-9).all(), ((draws.mean(0) - exact) / error).abs().max()


def test_a_wrong_model_of_two_layers_is_noticed():
    """What the enumeration must reject: the lower layer's entropy left out, and one estimator for both layers."""
    vae = small()
    x = vae.held_out("valid")[:3]
    exact = negative_elbo(vae, x)
    vae.penalty = lambda logits, layer: vae.divergence(logits) if layer else 0.0
    assert not torch.allclose(loss(vae, nested(vae, Exact()), x), exact)


@pytest.mark.parametrize("options", in_part(OPTIONS, 3))
def test_figures_are_those_of_discrete_draws(options):
    vae = small(**options)
    vae.draws["valid"] = 500
    x = vae.held_out("valid")
    torch.manual_seed(1)
    found = vae.evaluate("valid")
    with torch.no_grad():
        assert found["elbo"] == pytest.approx(-float(negative_elbo(vae, x).mean()), abs=0.05)
    assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"])
    assert found["elbo"] < found["bound"]


@pytest.mark.parametrize("layers", in_part([1, 2], 2))
def test_the_bound_goes_to_the_evidence(layers):
    vae = small(layers)
    vae.draws["valid"] = 4000
    x = vae.held_out("valid")
    with torch.no_grad():
        joint = []
        for z in codes(vae):
            nats = vae.reconstruction(z.expand(len(x), *z.shape), x)
            for higher in codes(vae) if vae.nested else [z]:
                down = log_p(vae.as_logits(vae.higher_decoders[0](higher.flatten())), z) if vae.nested else 0.0
                joint.append(log_p(vae.prior, higher) + down - nats)
        evidence = torch.stack(joint).logsumexp(0).mean()
        samples = vae.generated(20_000)
    assert vae.evaluate("valid")["bound"] == pytest.approx(float(evidence), abs=0.02)
    share = samples.flatten(1) @ torch.arange(1, 5, dtype=torch.float64)
    assert samples.sum(-1).eq(1).all()
    assert share.isfinite().all()


def test_samples_of_the_model_have_its_distribution():
    vae = small(K=1)
    with torch.no_grad():
        down = vae.as_logits(vae.higher_decoders[0](torch.eye(2).double())).softmax(-1)[:, 0]
        expected = vae.prior.softmax(-1)[0] @ down
        torch.manual_seed(0)
        found = vae.generated(20_000).mean(0)[0]
    assert (found - expected).abs().max() < 5 * 0.5 / 20_000**0.5


def test_the_divergence_from_a_learned_prior():
    logits, prior = torch.randn(5, 2, 3).double(), torch.randn(2, 3).double()
    p, q = logits.softmax(-1), prior.softmax(-1)
    assert torch.allclose(kl_from(prior, logits), (p * (p / q).log()).sum((-1, -2)))
    assert torch.allclose(kl_from(torch.zeros(2, 3).double(), logits), kl_from_uniform(logits))
    certain = torch.tensor([[[-torch.inf, 0.0]]], requires_grad=True)
    kl_from(torch.zeros(1, 2), certain).sum().backward()
    assert certain.grad.isfinite().all()


def test_every_layer_has_an_instance_of_its_own():
    state, cfg = started("task.layers=2", "estimator=reinforce", "estimator.decay=0.5", *SHORT)
    (inner,) = state.task.inner
    assert inner is not state.estimator
    train(state, cfg, lambda *_: None)
    assert [e.running.weight.item() for e in (state.estimator, inner)] == pytest.approx([1 - 0.5**20] * 2), (
        "20 steps each"
    )
    totals = [e.running.total.item() for e in (state.estimator, inner)]
    assert totals[0] != totals[1]
    assert "inner.0.running.total" in state.estimator.state_dict()
    assert not any("inner" in name for name in state.task.state_dict())


def test_learned_parts_of_every_layer_are_trained_at_their_rate():
    state, cfg = started("task.layers=2", "estimator.learned=true", "optimizer.estimator_lr=0.5", *SHORT)
    assert len(state.optimizer.param_groups[1]["params"]) == 2
    train(state, cfg, lambda *_: None)
    temperatures = [e.temperature().item() for e in (state.estimator, *state.task.inner)]
    assert 1 not in temperatures
    assert temperatures[0] != temperatures[1]


def test_without_gradients_nested_estimators_evaluate_once():
    vae = small()
    rows = []
    above = vae.from_higher
    vae.from_higher = lambda higher, *rest: rows.append(higher.shape) or above(higher, *rest)
    estimator = nested(vae, ARSM())
    with torch.no_grad():
        loss(vae, estimator, vae.held_out("valid")[:3])
    assert rows == [(1, 1, 3, 2, 2)]


def test_pinned_logits_are_0_and_left_out_of_statistics():
    vae = small(layers=1, pinned=True, C=3)
    x = vae.held_out("valid")[:4]
    problem = vae.problem(x)
    assert problem.logits[..., 0].eq(0).all()
    with forked_random(torch.device("cpu"), 1):
        found = measure(vae, Reinforce(), vae.problem(x), 5)
    logits = problem.logits.detach().requires_grad_()
    with forked_random(torch.device("cpu"), 1):
        vae.problem = lambda batch: problem
        problem.pinned = 0
        whole = measure(vae, Reinforce(), vae.problem(x), 5)
    assert found["logits/variance"] < whole["logits/variance"]
    assert found["logits/variance_mean"] == pytest.approx(found["logits/variance"] / 4)
    assert found["encoder/variance"] == pytest.approx(whole["encoder/variance"])
    assert logits.shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"layers": 0}, "layers must be an integer of at least 1, got 0"),
        ({"activation": "step"}, "activation must be one of relu, leaky_relu, tanh, got 'step'"),
        ({"activation": 1.5}, "activation must be from 0 up to but not including 1, got 1.5"),
        ({"initial_weights": "zero"}, "initial_weights must be one of fan_in, glorot, got 'zero'"),
        ({"test_samples": 0}, "test_samples must be an integer of at least 1, got 0"),
        ({"prior": "normal"}, "prior must be one of uniform, learned, got 'normal'"),
        ({"pinned": 1}, "pinned must be one of True, False, got 1"),
        ({"pinned": True, "categories": 1}, "categories must be an integer of at least 2, got 1"),
    ],
)
def test_wrong_options_are_refused(options, line):
    with pytest.raises((ValueError, TypeError), match=line):
        DiscreteVAE(**options)


@pytest.mark.parametrize("weights", ["fan_in", "glorot"])
def test_initial_weights_are_as_wide_as_they_say(weights):
    torch.manual_seed(0)
    network = perceptron([300, 500, 100], initial_weights=weights)
    for layer, (inputs, outputs) in zip(network[::2], [(300, 500), (500, 100)], strict=True):
        bound = inputs**-0.5 if weights == "fan_in" else (6 / (inputs + outputs)) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= (bound if weights == "fan_in" else 0)


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0), ("leaky_relu", 0.2), (0.1, 0.1), (0, 0)])
def test_the_slope_of_a_rectifier(activation, slope):
    assert perceptron([1, 1, 1], activation)[1](torch.tensor(-2.0)) == pytest.approx(-2 * slope)


def test_the_test_has_draws_of_its_own():
    """The bound grows with their number; the validation split's stays."""
    once, often = small(layers=1), small(layers=1, test_samples=200)
    for vae in (once, often):
        torch.manual_seed(1)
        vae.figures = {split: vae.evaluate(split)["bound"] for split in ("valid", "test")}
    assert once.figures["valid"] == often.figures["valid"]
    assert once.figures["test"] < often.figures["test"]


@pytest.mark.parametrize("option", ["task.prior=learned", "task.layers=2"])
def test_a_density_ratio_from_another_prior_is_refused(command, option):
    code, _, err = command("estimator.relaxed_kl=true", "task.kl=sampled", option, *SHORT)
    assert code == 2
    assert "error: relaxed_kl=true is for one layer with a uniform prior" in err


@pytest.mark.parametrize("estimator", [GumbelSoftmax(), StraightThroughGumbelSoftmax(), Reinforce()])
def test_relaxed_layers_pass_gradients_on(estimator):
    vae = small(kl="sampled")
    loss(vae, nested(vae, estimator), vae.held_out("valid")[:3]).mean().backward()
    for name, p in vae.named_parameters():
        assert p.grad.abs().sum() > 0, name


def test_a_grid_has_every_image_in_its_place():
    images = torch.arange(2 * 13 * 4).reshape(2, 13, 4).float()
    picture = grid(images, (2, 2, 1))
    assert picture.shape == (2 * 2 * 4, 10 * 4)
    assert picture[1:3, 5:7].flatten().tolist() == images[0, 1].tolist()
    assert picture[5:7, 5:7].flatten().tolist() == images[1, 1].tolist()
    assert picture[13:15, 9:11].flatten().tolist() == images[1, 12].tolist()


def test_a_grid_of_colour_images_of_any_shape():
    images = torch.arange(13 * 2 * 3 * 3).reshape(1, 13, -1).float()
    picture = grid(images, (2, 3, 3))
    assert picture.shape == (2 * 4, 10 * 5, 3)
    assert picture[1:3, 6:9].flatten().tolist() == images[0, 1].tolist()
    assert picture[5:7, 11:14].flatten().tolist() == images[0, 12].tolist()


def test_pictures_lie_in_the_run_s_folder(command, tmp_path):
    code, _, err = command("task.layers=2", "task.prior=learned", *SHORT)
    assert code == 0, err
    (folder,) = folders(tmp_path)
    for name, lines in (("reconstructions", 10), ("prior_samples", 5)):
        assert Image.open(folder / f"{name}.png").size == (10 * 10 * 3, lines * 10 * 3)
    assert "train/loss" in rows_of(folder)[-2]


# ---------------------------------------------------------------- learning rates


def test_warm_up_and_cosine():
    rates = [WarmupCosine(0.2, 0.1)(done / 10) for done in range(11)]
    assert rates[:3] == pytest.approx([0.1, 0.55, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert WarmupCosine(0.0)(0.0) == 1
    with pytest.raises(ValueError, match="warmup must be from 0 up to but not including 1, got 1"):
        WarmupCosine(1)


@pytest.mark.parametrize(("epochs", "steps"), [(500, 300), (50, 7), (30, 299)])
def test_a_rate_that_moves_once_an_epoch(epochs, steps):
    every, total = WarmupCosine(0.1, 0.01), epochs * steps
    rates = [WarmupCosine(0.1, 0.01, moves=epochs)(step / total) for step in range(total)]
    assert rates == [every(step // steps / epochs) for step in range(total)]
    with pytest.raises(ValueError, match="moves must be an integer of at least 1, got 0"):
        WarmupCosine(moves=0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamw_twice", "radam", "rmsprop", "sgd"])
def test_the_schedule_is_the_model_s(optimizer):
    schedule = ["schedule=warmup_cosine", f"optimizer={optimizer}", "optimizer.estimator_lr=0.5"]
    state, cfg = started("estimator.learned=true", *schedule, *SHORT)
    used = []
    step = state.optimizer.step
    state.optimizer.step = lambda: used.append([g["lr"] for g in state.optimizer.param_groups]) or step()
    train(state, cfg, lambda *_: None)
    assert used == [[cfg.optimizer.lr * WarmupCosine()(n / 20), 0.5] for n in range(20)]


def test_two_steps_with_each_gradient():
    once, twice = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    first, second = torch.optim.AdamW([once], lr=0.1), AdamWTwice([twice], lr=0.1)
    for gradient in torch.randn(4, 3, generator=torch.Generator().manual_seed(1)):
        once.grad, twice.grad = gradient.clone(), gradient.clone()
        first.step(), first.step()
        second.step()
    torch.testing.assert_close(twice, once, rtol=0, atol=0)
    assert second.state[twice]["step"] == 8


MANY_DRAWS = """
import torch
from hardmax.harness.memory import keep_freed_memory
from hardmax.tasks.data import Images
from hardmax.tasks.dvae import DiscreteVAE

keep_freed_memory()
images = torch.rand(2000, 784)
model = DiscreteVAE(2, 3, [], [], data=Images(images[:10], images[:10], images, "none"))


def megabytes():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


model.draws["test"] = 2
model.evaluate("test")
few = megabytes()
model.draws["test"] = 60
model.evaluate("test")
print(megabytes() - few)
"""


def test_a_bound_of_many_draws_takes_the_memory_of_few():
    """Of which each draw has 6 MB, and leaves behind 16 kB."""
    done = subprocess.run([sys.executable, "-c", MANY_DRAWS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60
