"""A distribution of PyTorch whose draws have an estimator's gradient."""

import pytest
import torch
from torch.distributions import Independent, kl_divergence

from hardmax import ARSM, GumbelSoftmax, OneHotCategorical, ReinMax, Softmax, StraightThrough

PLAIN = torch.distributions.OneHotCategorical
LOGITS = torch.tensor([[0.3, -1.0, 2.0], [0.5, 0.1, -0.4]], dtype=torch.float64)


def test_it_is_what_the_plain_distribution_is():
    ours, plain = OneHotCategorical(logits=LOGITS, estimator=ReinMax()), PLAIN(logits=LOGITS)
    assert (ours.batch_shape, ours.event_shape) == ((2,), (3,))
    for name in ("mean", "mode", "variance", "probs", "logits"):
        torch.testing.assert_close(getattr(ours, name), getattr(plain, name))
    torch.testing.assert_close(ours.entropy(), plain.entropy())
    torch.manual_seed(0)
    z = ours.sample((7,))
    torch.manual_seed(0)
    assert torch.equal(z, plain.sample((7,)))
    torch.testing.assert_close(ours.log_prob(z), plain.log_prob(z))
    torch.testing.assert_close(OneHotCategorical(plain.probs, estimator=ReinMax()).logits, plain.logits)


@pytest.mark.parametrize("estimator", [ReinMax(1.1), GumbelSoftmax(0.5), StraightThrough(), Softmax()])
def test_draws_have_the_estimators_gradient(estimator):
    logits = LOGITS.clone().requires_grad_()
    weight = torch.randn(4, 2, 3, dtype=torch.float64)
    torch.manual_seed(1)
    (expected,) = torch.autograd.grad((estimator.rsample(logits.expand(4, 2, 3)) * weight).square().sum(), logits)
    torch.manual_seed(1)
    q = OneHotCategorical(logits=logits, estimator=estimator)
    z = q.rsample((4,))
    assert z.shape == (4, 2, 3)
    (found,) = torch.autograd.grad((z * weight).square().sum(), logits)
    torch.testing.assert_close(found, expected)
    assert q.log_prob(z.detach()).shape == (4, 2)  # valid where the distribution checks its arguments


def test_who_needs_values_of_the_cost_has_no_rsample():
    q = OneHotCategorical(logits=LOGITS, estimator=ARSM())
    assert not q.has_rsample
    with pytest.raises(NotImplementedError, match=r"cost = ARSM\(...\)\(logits, objective\)"):
        q.rsample()
    assert q.sample().sum(-1).tolist() == [1, 1]


def test_it_expands_and_nests():
    q = OneHotCategorical(logits=LOGITS, estimator=ReinMax()).expand((5, 2))
    assert q.rsample((3,)).shape == (3, 5, 2, 3)
    assert isinstance(q.estimator, ReinMax)
    assert Independent(q, 1).log_prob(q.sample()).shape == (5,)


def test_divergences_are_in_log_space():
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log().requires_grad_()
    ours = OneHotCategorical(logits=p, estimator=ReinMax())
    prior = PLAIN(logits=torch.zeros(3, dtype=torch.float64))
    for q in (prior, OneHotCategorical(logits=prior.logits, estimator=ReinMax())):
        torch.testing.assert_close(kl_divergence(ours, q), torch.tensor(1.5, dtype=torch.float64).log())
    assert torch.autograd.grad(kl_divergence(ours, prior), p)[0].isfinite().all()
    assert kl_divergence(prior, ours) == torch.inf
    far = OneHotCategorical(logits=torch.tensor([0.0, -1e4]), estimator=ReinMax())
    assert kl_divergence(OneHotCategorical(logits=torch.zeros(2), estimator=ReinMax()), far) > 4900


def test_the_relaxed_divergence():
    """Its expectation, by an average over draws, is that of PyTorch's relaxed distributions."""
    relaxed, prior = GumbelSoftmax(0.7, relaxed_kl=True, prior_temperature=0.9), torch.zeros(3, dtype=torch.float64)
    draws = 200_000
    logits = LOGITS[:1].expand(draws, 3)
    found = kl_divergence(OneHotCategorical(logits=logits, estimator=relaxed), PLAIN(logits=prior.expand(draws, 3)))
    p = torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.7, dtype=torch.float64), logits=LOGITS[0])
    q = torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.9, dtype=torch.float64), logits=prior)
    y = p.rsample((draws,))
    expected = p.log_prob(y) - q.log_prob(y)
    error = (found.var() / draws + expected.var() / draws).sqrt()
    assert (found.mean() - expected.mean()).abs() < 4 * error
    assert found.mean() > 10 * error


def test_between_one_hots_the_density_is_linear():
    q = OneHotCategorical(logits=LOGITS[0], estimator=GumbelSoftmax())
    half = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(half), q.logits[:2].mean())


def test_in_a_model_of_pyro():
    """A mixture of two components, whose assignment is learned by the estimator's gradient."""
    pyro = pytest.importorskip("pyro")
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    class OneHot(OneHotCategorical, TorchDistributionMixin):
        pass

    x, means = torch.tensor([-2.0, 2.0, 2.1]), torch.tensor([-2.0, 2.0])

    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", OneHot(logits=torch.zeros(3, 2), estimator=ReinMax()))
            pyro.sample("x", pyro.distributions.Normal(z @ means, 1.0), obs=x)

    def guide():
        logits = pyro.param("logits", torch.zeros(3, 2))
        with pyro.plate("data", 3):
            pyro.sample("z", OneHot(logits=logits, estimator=ReinMax()))

    pyro.clear_param_store()
    loss = pyro.infer.Trace_ELBO(num_particles=10)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss)
    for _ in range(50):
        svi.step()
    assert pyro.param("logits").argmax(-1).tolist() == [0, 1, 1]


def test_what_is_impossible_has_no_probability():
    logits = torch.tensor([0.0, -torch.inf, 0.0])
    ours, plain = OneHotCategorical(logits=logits, estimator=ReinMax()), PLAIN(logits=logits)
    for z in torch.eye(3):
        assert ours.log_prob(z) == plain.log_prob(z)
    relaxed = OneHotCategorical(logits=logits, estimator=GumbelSoftmax())
    assert relaxed.log_prob(torch.tensor([0.5, 0.0, 0.5])).isfinite()


@pytest.mark.parametrize("estimator", [ReinMax, 3, None])
def test_what_is_no_estimator_is_refused(estimator):
    with pytest.raises(TypeError, match=r"estimator must be an estimator, such as hardmax.ReinMax\(\), got"):
        OneHotCategorical(logits=LOGITS, estimator=estimator)
