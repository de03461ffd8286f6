"""What else estimators are called: each name is held, on the same draws, to the formula that is known by it."""

import itertools

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from hardmax import certification as c
from hardmax.estimators import sampling
from hardmax.estimators.__main__ import other_names
from hardmax.harness.names import meanings, meant
from hardmax.harness.shared import simplified
from hardmax.paths import CONFIGS

CONFIGURED = {path.stem: OmegaConf.load(path) for path in sorted((CONFIGS / "estimator").glob("*.yaml"))}
NAMES = [
    (stem, name) for stem, config in CONFIGURED.items() for name in get_class(config["_target_"]).other_names().items()
]
PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.4)
BINARY = c.SmallProblem(3, 2)


def called(name):
    """The estimator that a name means, with its settings."""
    stem, settings = meanings()[simplified(name)]
    return instantiate(OmegaConf.merge(CONFIGURED[stem], OmegaConf.from_dotlist(settings)))


def draw_of(name, problem=PROBLEM, log_q=False):
    """A gradient to the logits, and the objective; the random stream is then as it was before the draw."""
    logits, objective = problem.logits.clone().requires_grad_(), problem.objective(problem.parameters)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(called(name)(logits, objective, log_q=log_q).sum(), logits)
    torch.manual_seed(2)
    return found, logits, objective


def score_function(name):
    found, logits, objective = draw_of(name)
    z = sampling.draw(logits, 1)
    loss = (objective(z) * (z * logits.log_softmax(-1)).sum((-2, -1))).sum()
    return found, torch.autograd.grad(loss, logits)[0]


def self_critical(name):
    found, logits, objective = draw_of(name)
    z, greedy = sampling.draw(logits, 1), torch.nn.functional.one_hot(logits.argmax(-1), 3).double().unsqueeze(0)
    loss = ((objective(z) - objective(greedy)) * (z * logits.log_softmax(-1)).sum((-2, -1))).sum()
    return found, torch.autograd.grad(loss, logits)[0]


def mean_of_the_others(name):
    """RLOO: the mean over S draws of (f_s - mean of the other costs) grad log q(z_s)."""
    found, logits, objective = draw_of(name)
    z = sampling.draw(logits, 4)
    cost = objective(z)
    loss = 0
    for s in range(4):
        others = torch.stack([cost[t] for t in range(4) if t != s]).mean(0)
        loss = loss + ((cost[s] - others) * (z[s] * logits.log_softmax(-1)).sum((-2, -1))).sum() / 4
    return found, torch.autograd.grad(loss, logits)[0]


def policy_optimisation(name):
    """(Dr.) GRPO's loss, one token a variable, at its first step: ratios of 1, where clipping does nothing."""
    found, logits, objective = draw_of(name)
    z = sampling.draw(logits, 4)
    log_q, reward = (z * logits.log_softmax(-1)).sum((-2, -1)), -objective(z)
    advantage = reward - reward.mean(0)
    if name == "GRPO":
        advantage = advantage / (reward.std(0) + 1e-4)
    ratio = (log_q - log_q.detach()).exp()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean(0).sum()
    return found, torch.autograd.grad(loss, logits)[0]


def variance_of_log_ratios(name):
    """VarGrad: half the variance over the draws, which are constants, of log q(z) less the log joint."""
    found, logits, objective = draw_of(name, log_q=True)
    z = sampling.draw(logits, 4)
    log_ratio = (z * logits.log_softmax(-1)).sum((-2, -1)) + objective(z)
    return found, torch.autograd.grad(0.5 * log_ratio.var(0).sum(), logits)[0]


def costs_of_changes(logits, objective):
    """Costs ``[*batch, K, C]`` with variable k at category c and the others as drawn."""
    z = sampling.categorical(logits, 1)
    costs = torch.zeros_like(logits)
    for k, category in itertools.product(*map(range, logits.shape[-2:])):
        changed = z.clone()
        changed[..., k] = category
        costs[..., k, category] = objective(sampling.one_hot(changed, logits))[0]
    return costs.detach()


def indecater(name):
    """The derivative of every variable's own probabilities times the costs, the others as drawn."""
    found, logits, objective = draw_of(name)
    costs = costs_of_changes(logits, objective)
    return found, torch.autograd.grad((logits.softmax(-1) * costs).sum(), logits)[0]


def catlog(name):
    """The CatLog-derivative: the sum over categories of p(c) f(c) grad log p(c)."""
    found, logits, objective = draw_of(name)
    costs = costs_of_changes(logits, objective)
    weight = logits.softmax(-1).detach() * costs
    return found, torch.autograd.grad((weight * logits.log_softmax(-1)).sum(), logits)[0]


def go(name):
    """Minus the derivative of Q(y) over q(y), times f(y + 1) - f(y), in the mean over y given the other variables."""
    found, logits, objective = draw_of(name)
    costs, p = costs_of_changes(logits, objective), logits.softmax(-1)
    step = costs[..., 1:] - costs[..., :-1]
    of_cdf = p.detach()[..., :-1] * (-p.cumsum(-1)[..., :-1] / p.detach()[..., :-1]) * step
    return found, torch.autograd.grad(of_cdf.sum(), logits)[0]


def measure_valued(name):
    """For logit c: p_c (1 - p_c) times the cost of c less the mean cost of the other categories."""
    found, logits, objective = draw_of(name)
    costs, p = costs_of_changes(logits, objective), logits.detach().softmax(-1)
    expected = torch.zeros_like(p)
    for category in range(3):
        others = p.clone()
        others[..., category] = 0
        others = others / others.sum(-1, keepdim=True)
        part = p[..., category] * (1 - p[..., category])
        expected[..., category] = part * (costs[..., category] - (others * costs).sum(-1))
    return found, expected


def marginals_of_subsets(name):
    """SIMPLE: a draw forward, backward the marginals that each category is in the subset, here of size 1."""
    found, logits, objective = draw_of(name)
    z = sampling.draw(logits, 1).requires_grad_()
    (slope,) = torch.autograd.grad(objective(z).sum(), z)
    weight_of_subsets = logits.exp()  # of those of one category: exp of the sum of its logits
    marginals = weight_of_subsets / weight_of_subsets.sum(-1, keepdim=True)
    return found, torch.autograd.grad((slope[0] * marginals).sum(), logits)[0]


def concrete(name):
    """Maddison et al.: exp((log a + G) / t) over its sum."""
    found, logits, objective = draw_of(name)
    weight = ((logits + sampling.gumbel(logits, 1)) / 1.0).exp()
    return found, torch.autograd.grad(objective(weight / weight.sum(-1, keepdim=True)).sum(), logits)[0]


def hard_gumbel_softmax(name):
    found, logits, objective = draw_of(name)
    soft = (logits + sampling.gumbel(logits, 1)).softmax(-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), 3).double()
    return found, torch.autograd.grad(objective(hard - soft.detach() + soft).sum(), logits)[0]


def gapped(name):
    """As in the paper: the drawn logit is raised to the largest, the others lowered to a gap of 1 below."""
    found, logits, objective = draw_of(name)
    hard, phi = sampling.draw(logits, 1)[0], logits.detach()
    top = phi.amax(-1, keepdim=True)
    raised = (top - (phi * hard).sum(-1, keepdim=True)) * hard
    lowered = (phi - top + 1).clamp(min=0) * (1 - hard)
    soft = (logits + raised - lowered).softmax(-1)
    return found, torch.autograd.grad(objective((hard + soft - soft.detach()).unsqueeze(0)).sum(), logits)[0]


def everything(name):
    found, *_ = draw_of(name, BINARY)
    return found.flatten(), BINARY.truth()[1]


def wake_phase(name):
    """Minus the self-normalised weights times the gradient of log q, the weights being joint over q."""
    found, logits, objective = draw_of(name, log_q=True)
    z = sampling.draw(logits, 4)
    log_q = (z * logits.log_softmax(-1)).sum((-2, -1))
    weight = (-objective(z) - log_q).detach().softmax(0)
    return found, torch.autograd.grad(-(weight * log_q).sum(), logits)[0]


def control_of_the_others(name):
    """OVIS for large effective sample sizes: (log Z less log Z without the draw) times its score; Liévin et al., 17."""
    found, logits, objective = draw_of(name, log_q=True)
    z = sampling.draw(logits, 4)
    log_q = (z * logits.log_softmax(-1)).sum((-2, -1))
    weight = (-objective(z) - log_q).detach().exp()
    factor = weight.mean(0).log() - ((weight.sum(0) - weight) / 3).log()
    return found, torch.autograd.grad(-(factor * log_q).sum(), logits)[0]


def thermodynamic(name):
    """Masrani et al.: the covariance under each of two distributions of log-weights and log-densities, and the mean."""
    found, logits, objective = draw_of(name, log_q=True)
    z = sampling.draw(logits, 4)
    log_q, log_joint = (z * logits.log_softmax(-1)).sum((-2, -1)), -objective(z)
    total = 0
    for beta, step in ((0.0, 0.1), (0.1, 0.9)):
        log_weight, log_pi = log_joint - log_q, beta * log_joint + (1 - beta) * log_q
        w = (beta * log_weight).softmax(0).detach()
        centred = (log_weight - (w * log_weight).sum(0)).detach()
        total = total + step * (4 / 3 * (w * centred * log_pi).sum(0) + (w * log_weight).sum(0))
    return found, torch.autograd.grad(-total.sum(), logits)[0]


def binary_disarm(name):
    """Half of f(b) - f(b') times (-1)^b' where they differ times sigmoid(|a|), a the log-odds of category 0."""
    found, logits, objective = draw_of(name, BINARY)
    z = called(name).pair(logits.detach())
    cost = objective(sampling.one_hot(z, logits)).detach()
    a = (logits[:, 0] - logits[:, 1]).detach()
    b = 1 - z
    expected = 0.5 * (cost[0] - cost[1]) * (1 - 2 * b[1].double()) * (b[0] != b[1]) * a.abs().sigmoid()
    return found[:, 0], expected


def binary_arm(name):
    """(f(u < s) - f(1 - u < s)) (1/2 - u), the joint swap of all variables."""
    found, logits, objective = draw_of(name, BINARY)
    phi = logits.detach()
    noise = sampling.gumbel(phi, 1)[0].neg().exp()
    u = noise[:, 0] / noise.sum(-1)
    s = (phi[:, 0] - phi[:, 1]).sigmoid()
    f = lambda u: objective(sampling.one_hot(1 - (u < s).long(), phi).unsqueeze(0))[0]
    return found[:, 0], (f(u) - f(1 - u)) * (0.5 - u)


def antithetic(name):
    """ARMS: leave-one-out REINFORCE over 1 - rho, the correlation of two of the draws of a variable."""
    found, logits, objective = draw_of(name, BINARY)
    log_p = logits.detach().double().log_softmax(-1)
    z = called(name).draws(log_p)
    cost, (p, rare) = objective(sampling.one_hot(z, logits)).detach(), log_p.exp().min(-1)
    both = (2 * p ** (1 / 3) - 1).clamp(min=0) ** 3
    rho = (both - p.square()) / (p * (1 - p))
    b = (z == rare).double()
    expected = ((cost - cost.mean(0)).unsqueeze(-1) * (b - p)).sum(0) / 3 / (1 - rho)
    return found.gather(-1, rare.unsqueeze(-1)).squeeze(-1), expected


def black_box(name):
    """BBVI, Equation 9: for each variable the summed covariances of f h with h over the summed variances of h.

    Where all four draws are the same one, as for a variable here, that is 0 over 0, and taken for 0.
    """
    found, logits, objective = draw_of(name)
    z = sampling.draw(logits, 4)
    h = (z - logits.softmax(-1)).detach()
    f = objective(z).detach()
    expected = torch.zeros_like(found)
    for n, k in itertools.product(range(2), range(2)):
        both = [torch.stack([f[:, n] * h[:, n, k, c], h[:, n, k, c]]).cov() for c in range(3)]
        a = sum(cov[0, 1] for cov in both) / sum(cov[1, 1] for cov in both).clamp(min=1e-30)
        expected[n, k] = (f[:, n, None] * h[:, n, k] - a * h[:, n, k]).mean(0)
    return found, expected


def flipped_bit(name):
    """bitflip-1: of one variable drawn at random, K p (1 - p) (f with it 1 - f with it 0), the others as drawn."""
    found, logits, objective = draw_of(name, BINARY)
    costs = costs_of_changes(logits, objective)
    which, p = called(name).changed(logits), logits.detach().softmax(-1)[:, 1]
    expected = torch.zeros_like(p)
    expected[which] = (3 * p * (1 - p) * (costs[:, 1] - costs[:, 0]))[which]
    return found[:, 1], expected


def stretched_and_projected(name):
    """The point of the simplex nearest to 1.2 times a relaxed sample at temperature 2/3; of two categories, a gate."""
    problem = PROBLEM if name == "K-D Hard Concrete" else BINARY
    found, logits, objective = draw_of(name, problem)
    y = ((logits + sampling.gumbel(logits, 1)) * 1.5).softmax(-1)
    if problem is BINARY:
        gate = (y[..., 1] * 1.2 - 0.1).clamp(0, 1)
        return found, torch.autograd.grad(objective(torch.stack([1 - gate, gate], -1)).sum(), logits)[0]
    low, high = -torch.ones_like(y[..., :1]).detach(), torch.ones_like(y[..., :1]).detach()
    for _ in range(100):  # the threshold above which the weights add up to 1
        middle = (low + high) / 2
        more = (1.2 * y.detach() - middle).clamp(min=0).sum(-1, keepdim=True) > 1
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    inside = (1.2 * y > low).double()
    threshold = ((1.2 * y * inside).sum(-1, keepdim=True) - 1) / inside.sum(-1, keepdim=True)
    return found, torch.autograd.grad(objective((1.2 * y - threshold) * inside).sum(), logits)[0]


def better_point(name):
    """SPIGOT-EG: p less a step of exponentiated gradient from p; SPIGOT-CE: less one of projected gradient."""
    found, logits, objective = draw_of(name, BINARY)
    p = logits.detach().softmax(-1)
    z = torch.nn.functional.one_hot(p.argmax(-1), 2).double().unsqueeze(0).requires_grad_()
    (g,) = torch.autograd.grad(objective(z).sum(), z)
    if name == "SPIGOT-EG":
        better = p * (-g[0]).exp()
        return found, p - better / better.sum(-1, keepdim=True)
    better = (p[:, 1] - (g[0, :, 1] - g[0, :, 0]) / 2).clamp(0, 1)  # the nearest point of a line
    return found[:, 1], p[:, 1] - better


def loss_augmented(name):
    """Lorberbom et al.: the maximiser of perturbed logits less that of them less the costs."""
    found, logits, objective = draw_of(name)
    perturbed = logits.detach() + sampling.gumbel(logits, 1)
    z, costs = perturbed.argmax(-1), torch.zeros_like(found)
    for k, category in itertools.product(*map(range, logits.shape[-2:])):
        changed = z.clone()
        changed[..., k] = category
        costs[..., k, category] = objective(sampling.one_hot(changed, logits)).detach()[0]
    return found, sampling.one_hot(z[0], found) - sampling.one_hot((perturbed[0] - costs).argmax(-1), found)


HELD = {
    "ARMS": antithetic,
    "BBVI": black_box,
    "bitflip-1": flipped_bit,
    "K-D Hard Concrete": stretched_and_projected,
    "L0 gates": stretched_and_projected,
    "SPIGOT-CE": better_point,
    "SPIGOT-EG": better_point,
    "direct loss minimisation": loss_augmented,
    "Direct-VAE": loss_augmented,
    "score function": score_function,
    "log-derivative trick": score_function,
    "SCST": self_critical,
    "RLOO": mean_of_the_others,
    "LOORF": mean_of_the_others,
    "GRPO": policy_optimisation,
    "Dr. GRPO": policy_optimisation,
    "VarGrad": variance_of_log_ratios,
    "LEG": indecater,
    "IndeCateR": indecater,
    "CatLog-derivative": catlog,
    "GO gradient": go,
    "summed measure-valued derivative": measure_valued,
    "SIMPLE": marginals_of_subsets,
    "Concrete": concrete,
    "STGS": hard_gumbel_softmax,
    "hard Gumbel-softmax": hard_gumbel_softmax,
    "GST": gapped,
    "enumeration": everything,
    "marginalisation": everything,
    "RWS": wake_phase,
    "wake-wake": wake_phase,
    "OVIS": control_of_the_others,
    "thermodynamic variational objective": thermodynamic,
    "DisARM": binary_disarm,
    "U2G": binary_disarm,
    "ARM": binary_arm,
}


@pytest.mark.parametrize("name", HELD)
def test_a_name_is_deserved(name):
    found, expected = HELD[name](name)
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-12


def test_every_name_is_held_to_something():
    assert {name for _, (name, _) in NAMES} == HELD.keys()
    known = [
        simplified(name)
        for stem, config in CONFIGURED.items()
        for name in (stem, get_class(config["_target_"]).__name__)
    ]
    given = [simplified(name) for _, (name, _) in NAMES]
    assert len({*given}) == len(given), "a name means one estimator"
    assert not {*given} & {*known}, "an estimator's own name is no other name"


@pytest.mark.parametrize("name", ["rloo", "RLOO", "R-LOO", "r_loo"])
def test_names_are_found_however_they_are_written(name):
    assert meant(name, []) == (
        " (did you mean estimator=reinforce estimator.samples=4 estimator.baseline=leave_one_out?)"
    )
    assert meant(name, [], rival=True) == " (did you mean {reinforce:{samples:4,baseline:leave_one_out}}?)"


def test_names_without_settings_are_those_of_a_class():
    assert meant("summed-measure_valued derivative", []) == " (did you mean estimator=local_expectation?)"
    assert meant("StochasticStraightThrough", [], rival=True) == " (did you mean stochastic_straight_through?)"
    assert meant("arsmm", ["arsm"]) == " (did you mean arsm?)"
    assert meant("nothing like it", ["arsm"]) == ""


def test_names_of_the_same_settings_stand_together_in_the_table():
    class Named(get_class("hardmax.estimators.ReinMax")):
        also_known_as = ("A", "B: x=1 y=2", "C: x=1 y=2", "D: x=2")

    assert other_names(Named()) == "A, B, C (`x=1 y=2`), D (`x=2`)"


def test_a_run_is_refused_with_the_right_name(command):
    code, _, err = command("estimator=Rloo", "task=toy")
    assert code == 2
    assert err.startswith("error: estimator=Rloo does not exist (did you mean estimator=reinforce estimator.samples=4 ")
    assert len(err.splitlines()) == 1
    code, _, err = command("-m", "estimator=arsm,indecater", "task=toy")
    assert code == 2
    assert "(did you mean estimator=local_expectation?)" in err
    code, _, err = command("estimator=arsm", "task=toy", "measure.rivals=[loorf]")
    assert code == 2
    assert "measure.rivals: loorf does not exist (did you mean {reinforce:{samples:4,baseline:leave_one_out}}?)" in err
