"""Tasks against closed forms and enumeration."""

import math

import pytest
import torch

from hardmax.estimators import Exact
from hardmax.tasks.digits import digits
from hardmax.tasks.dvae import DiscreteVAE
from hardmax.tasks.language import GRAMMAR, NOTHING, corpus, language
from hardmax.tasks.text import Text
from hardmax.tasks.toy import Toy
from hardmax.tasks.vae import kl_from_uniform


@pytest.mark.parametrize("objective", ["reward", "quadratic"])
@pytest.mark.parametrize("sizes", [(1, 5), (2, 3), (3, 2), (2, 1)])
def test_toy_expectation_is_the_enumerated_one(objective, sizes):
    toy = Toy(*sizes, objective=objective)
    logits = torch.randn(4, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    toy.double()
    exact = Exact()(logits.requires_grad_(), toy.objective)
    assert torch.allclose(exact, toy.expected_cost(logits))
    K, C = sizes
    lowest = min(
        float(toy.objective(torch.nn.functional.one_hot(torch.tensor(z), C).double()))
        for z in torch.cartesian_prod(*[torch.arange(C)] * K).reshape(-1, K).tolist()
    )
    assert toy.optimum() == pytest.approx(lowest)


def test_toy_is_figure_1():
    """Published: expected reward 0.5172222 at the start, 0.5333333 at the optimum."""
    found = Toy().evaluate("valid")
    assert found["cost"] == pytest.approx(-0.5172222, abs=1e-6)
    assert found["optimum"] == pytest.approx(-0.5333333, abs=1e-6)
    assert found["gap"] == pytest.approx(found["cost"] - found["optimum"])


def test_digits_are_split_the_same_every_time():
    first, second = digits(), digits()
    assert {k: tuple(v.shape) for k, v in first.items()} == {"train": (1297, 64), "valid": (250, 64), "test": (250, 64)}
    for split in first:
        assert torch.equal(first[split], second[split])
        assert first[split].min() == 0
        assert first[split].max() == 1
    assert len(torch.cat(list(first.values())).unique(dim=0)) == 1797, "splits do not overlap"


def make(**options):
    torch.manual_seed(0)
    return DiscreteVAE(2, 3, [8], [8], **options)


def log_joint(vae, x):
    """log p(x, z) of all configurations, by enumeration: ``[N, B]``."""
    z = torch.nn.functional.one_hot(torch.cartesian_prod(torch.arange(3), torch.arange(3)), 3).float()
    return -vae.reconstruction(z.unsqueeze(1).expand(9, len(x), 2, 3), x) - 2 * math.log(3)


def test_elbo_and_bound_are_those_of_discrete_draws():
    vae = make(bound_samples=2000)
    x = vae.data.valid_images
    torch.manual_seed(1)
    found = vae.evaluate("valid")
    with torch.no_grad():
        joint, logits = log_joint(vae, x), vae.logits(x)
        log_q = logits.log_softmax(-1)
        log_q = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).flatten(1).T
        elbo = (log_q.exp() * (joint - log_q)).sum(0).mean()
        evidence = joint.logsumexp(0).mean()
    assert found["elbo"] == pytest.approx(float(elbo), abs=0.02)
    assert found["bound"] == pytest.approx(float(evidence), abs=0.02)
    assert found["elbo"] < found["bound"]


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_both_kl_terms_have_the_elbo_as_expectation(kl):
    vae = make(kl=kl)
    x = vae.data.valid_images[:20]
    problem = vae.problem(x)
    loss = (Exact()(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty).mean()
    with torch.no_grad():
        joint = log_joint(vae, x)
        log_q = vae.logits(x).log_softmax(-1)
        log_q = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).flatten(1).T
        elbo = (log_q.exp() * (joint - log_q)).sum(0).mean()
    assert loss.item() == pytest.approx(-float(elbo), rel=1e-5)


def test_kl_is_finite_and_right_at_extremes():
    logits = torch.tensor([[[0.0, 0.0]], [[-torch.inf, 0.0]], [[1e4, -1e4]]], requires_grad=True)
    kl = kl_from_uniform(logits)
    assert kl.tolist() == pytest.approx([0.0, math.log(2), math.log(2)], abs=1e-6)
    kl.sum().backward()
    assert logits.grad.isfinite().all()


def test_training_images_are_binarised_anew_and_held_out_ones_are_not():
    vae = make()
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(10)
    assert not torch.equal(vae.batch(index, generator), vae.batch(index, generator))
    assert torch.equal(vae.measurement_batch(10), vae.measurement_batch(10))
    assert set(vae.batch(index, generator).unique().tolist()) == {0.0, 1.0}
    means = torch.stack([vae.batch(index, generator) for _ in range(2000)]).mean(0)
    assert (means - vae.data.train_images[index]).abs().max() < 0.06, "five standard errors of a pixel"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": 0}, "variables must be an integer of at least 1, got 0"),
        ({"kl": "exact"}, "kl must be one of analytic, sampled, got 'exact'"),
        ({"decoder_widths": [0]}, "each of decoder_widths must be an integer of at least 1, got 0"),
        ({"bound_samples": 0}, "bound_samples must be an integer of at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DiscreteVAE(**options)


# ---------------------------------------------------------------- text


def chain_rule(symbol, of):
    """Expectation over derivations of a sum: ``of(p)`` for every choice made with probability p, 1 for every word."""
    if symbol not in GRAMMAR:
        return of(None)
    sides = GRAMMAR[symbol].items()
    return sum(p * (of(p) + sum(chain_rule(part, of) for part in side.split())) for side, p in sides)


def test_the_language_is_the_grammar_s():
    source = language()
    assert all(sum(sides.values()) == pytest.approx(1) for sides in GRAMMAR.values())
    assert len(source.sentences) == len(source.sentences.unique(dim=0)) == 101_040, "no sentence has two derivations"
    assert float(source.log_p.exp().sum()) == pytest.approx(1)
    assert source.entropy() == pytest.approx(chain_rule("sentence", lambda p: 0 if p is None else -math.log(p)))
    assert source.tokens() == pytest.approx(1 + chain_rule("sentence", lambda p: 1 if p is None else 0))
    assert source.entropy() / source.tokens() == pytest.approx(1.487, abs=5e-4), "as the documentation says"
    assert source.text(source.sentences[0]).split()[0] in GRAMMAR["determiner"]


def test_sentences_come_with_their_probabilities():
    source, found = language(), corpus()
    for _, surprisal in found.values():
        spread = float(surprisal.std()) / len(surprisal) ** 0.5
        assert abs(float(surprisal.mean()) - source.entropy()) < 3.5 * spread
    tokens, surprisal = found["test"]
    for row, bits in zip(tokens[:20], surprisal[:20], strict=True):
        (n,) = (source.sentences == row).all(-1).nonzero().flatten().tolist()
        assert float(bits) == pytest.approx(-float(source.log_p[n]), rel=1e-6)


def small_text(**options):
    torch.manual_seed(0)
    return Text(2, 3, [8], [8], **options)


def test_text_figures_are_nats_per_token():
    text = small_text(bound_samples=500)
    x = text.held_out("valid")
    z = torch.nn.functional.one_hot(torch.cartesian_prod(torch.arange(3), torch.arange(3)), 3).float()
    with torch.no_grad():
        words = text.words(z).log_softmax(-1)  # [9, T, V]
        chosen = (
            words.unsqueeze(1)
            .expand(9, len(x), *words.shape[1:])
            .gather(-1, x.clamp(min=0)[None, ..., None].expand(9, *x.shape, 1))
        )
        likelihood = (chosen.squeeze(-1) * (x != NOTHING)).sum(-1)  # [9, N]
        log_q = text.logits(text.features(x)).log_softmax(-1)
        log_q = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).flatten(1).T
        elbo = (log_q.exp() * (likelihood - 2 * math.log(3) - log_q)).sum(0).mean() / language().tokens()
    torch.manual_seed(1)
    found = text.evaluate("valid")
    assert found["elbo"] == pytest.approx(float(elbo), abs=2e-3)
    assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"])
    surprisal = float(text.data.surprisal["valid"].mean()) / language().tokens()
    assert found["distance"] == pytest.approx(-found["elbo"] - surprisal)
    assert found["distance"] > 0
    assert found["bits"] == pytest.approx(-found["elbo"] / math.log(2))
    assert 0 <= found["accuracy"] <= 1


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_text_loss_is_the_elbo(kl):
    text = small_text(kl=kl)
    x = text.held_out("valid")[:50]
    problem = text.problem(x)
    loss = (
        Exact()(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty
    ).mean() / text.nats_divisor
    z = torch.nn.functional.one_hot(torch.cartesian_prod(torch.arange(3), torch.arange(3)), 3).float()
    with torch.no_grad():
        nats = text.reconstruction(z.unsqueeze(1).expand(9, 50, 2, 3), x)
        log_q = text.logits(text.features(x)).log_softmax(-1)
        log_q = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).flatten(1).T
        expected = (log_q.exp() * (nats + log_q + 2 * math.log(3))).sum(0).mean() / text.nats_divisor
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)


def test_a_language_model_that_knows_the_language_has_no_distance():
    """A decoder that ignores z is at best the product of the words' marginals: the surplus is what words tell
    about each other, and no model that was not fitted comes below it."""
    text = small_text(bound_samples=1)
    source = language()
    p = source.log_p.exp()
    counts = torch.zeros(text.places, text.vocabulary, dtype=torch.float64)
    for place in range(text.places):
        tokens = source.sentences[:, place]
        counts[place].index_add_(0, tokens[tokens >= 0], p[tokens >= 0])
    marginals = counts / counts.sum(-1, keepdim=True)
    with torch.no_grad():
        for layer in text.encoder[-1], text.decoder[-1]:
            layer.weight.zero_(), layer.bias.zero_()
        text.decoder[-1].bias.copy_(marginals.log().clamp(min=-50).flatten())
    independent = -(counts * marginals.log().clamp(min=-1e9)).sum()
    excess = float(independent - source.entropy()) / source.tokens()
    found = text.evaluate("test")
    assert found["kl"] == pytest.approx(0, abs=1e-6)
    assert found["distance"] == pytest.approx(excess, abs=0.02)


def test_extreme_words_cost_finite_nats():
    text = small_text()
    x = text.held_out("valid")[:5]
    with torch.no_grad():
        text.decoder[-1].bias.uniform_(-1e4, 1e4)
    problem = text.problem(x)
    cost = Exact()(problem.logits, problem.objective)
    cost.sum().backward()
    assert cost.isfinite().all()
    assert all(p.grad.isfinite().all() for p in text.parameters())


def test_reconstructions_are_shown_as_sentences():
    shown = small_text().show()["reconstructions"]
    assert len(shown) == 20
    assert shown[0].keys() == {"sentence", "reconstruction"}
    assert shown[0]["sentence"] == language().text(corpus()["test"][0][0])
