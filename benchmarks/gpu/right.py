r"""Whether what comes from the device is right: certification, the law of draws, and resumption bit for bit."""

import io
from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.certification import PROBLEMS, SMALL, check_on_device
from hardmax.estimators import sampling
from hardmax.estimators.arsm import Race
from hardmax.estimators.carms import InverseCDF, Sticks
from hardmax.estimators.disarm import DisARMIW, DisARMSB, DisARMTree

from .models import FEW, NAMES, Training, make, names
from .parts import Part

SEVERAL = 4  # draws at a time of what is coupled
LOGITS = ((0.0, -1.0, 2.0, -8.0, 0.5), (1.0, 1.0, -3.0, 0.0, -0.5))  # rare: 3e-5
# What draws categories: from double logits [N, K, C] to indices [N, K], one of the draws where there are several.
DRAWN: dict[str, Callable[[Tensor], Tensor]] = {
    "categorical, float32": lambda logits: sampling.categorical(logits.float(), 1)[0],
    "categorical, float64": lambda logits: sampling.categorical(logits, 1)[0],
    "Gumbel noise, float32": lambda logits: (logits.float() + sampling.gumbel(logits.float(), 1)[0]).argmax(-1),
    "ARSM's race, float32": lambda logits: Race(logits.float()).order[..., 0],
    "CARMS, sticks": lambda logits: Sticks(SEVERAL).draws(logits.log_softmax(-1))[1],
    "CARMS, inverse CDF": lambda logits: InverseCDF(SEVERAL).draws(logits.log_softmax(-1))[1],
    "DisARM-IW, second draw": lambda logits: DisARMIW().pair(logits)[1],
    "DisARM-SB, second draw": lambda logits: DisARMSB().pair(logits)[1],
    "DisARM-Tree, second draw": lambda logits: DisARMTree().pair(logits)[1],
}


def certification(part: Part) -> None:
    r"""Every estimator in float32 on the device against float64 on the processor."""
    problems = [SMALL] if part.small else PROBLEMS

    def work(name: str) -> dict:
        found = [check_on_device(make(name), problem, part.device) for problem in problems]
        return {"exact": found[0].exact, "errors": [f.error for f in found], "bound": found[0].bound}

    part.each(work, FEW if part.small else NAMES)


def draws(part: Part) -> None:
    r"""Chi-square of joint draws of two variables, and extremes of the noise."""
    count, times = (2**12, 1) if part.small else (2**17, 1) if part.device == "cpu" else (2**20, 8)
    logits = torch.tensor(LOGITS, dtype=torch.float64, device=part.device)
    p = logits.softmax(-1).cpu()
    expected = (p[0].unsqueeze(-1) * p[1]).flatten()  # of the 25 joint outcomes
    noises = {"range of Gumbel noise": sampling.gumbel, "range of uniform noise": sampling.uniform}

    def work(name: str) -> dict:
        torch.manual_seed(0)
        if name in noises:
            found = [noises[name](torch.zeros(count, 25, device=part.device), 1).aminmax() for _ in range(4)]
            low, high = min(float(x.min) for x in found), max(float(x.max) for x in found)
            return {"draws": 4 * 25 * count, "low": low, "high": high}
        counts = torch.zeros(25, dtype=torch.float64)
        for _ in range(times):
            drawn = DRAWN[name](logits.expand(count, *logits.shape).contiguous())
            counts += torch.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25).cpu()
        return {"draws": times * count, **chi_square(counts, expected * times * count)}

    part.each(work, [*DRAWN, *noises])


def chi_square(counts: Tensor, expected: Tensor) -> dict:
    r"""Pearson's statistic, degrees of freedom, p-value; outcomes expected less than 5 times are put together."""
    rare = expected < 5
    pairs = [(c[~rare], c[rare].sum().unsqueeze(0)) for c in (counts, expected)]
    (counts, expected) = (torch.cat(pair) if rare.any() else pair[0] for pair in pairs)
    statistic = ((counts - expected).square() / expected).sum()
    freedom = len(counts) - 1
    p_value = float(torch.special.gammaincc(torch.tensor(freedom / 2, dtype=torch.float64), statistic / 2))
    return {"chi_square": float(statistic), "freedom": freedom, "p_value": p_value}


def resume(part: Part) -> None:
    r"""Training twice, and in two halves with everything restored between them: the same bit for bit?"""
    half = 2 if part.device == "cpu" else 5

    def run(name: str, steps: list[int]) -> list[Tensor]:
        state: dict | None = None
        for seed, so_many in enumerate(steps):  # the second half starts in a model of other numbers
            training = Training(name, part.device, seed=seed, **part.sizes)
            if state is not None:
                restore(training, state, part.device)
            for _ in range(so_many):
                training.step()
            state = kept(training, part.device)
        return [p.detach().cpu() for p in (*training.task.parameters(), *training.estimator.parameters())]

    def work(name: str) -> dict:
        once, again, resumed = run(name, [2 * half]), run(name, [2 * half]), run(name, [half, half])
        return {"steps": 2 * half, "repeats": equal(once, again), "resumes": equal(once, resumed)}

    part.each(work, names(part.small))


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def kept(training: Training, device: str) -> dict:
    r"""All that training goes on from, through a file in memory."""
    state = training.state() | {"random": torch.get_rng_state()}
    if device != "cpu":
        state["random_cuda"] = torch.cuda.get_rng_state(device)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location=device, weights_only=True)


def restore(training: Training, state: dict, device: str) -> None:
    training.restore(state)
    torch.set_rng_state(state["random"].cpu())
    if device != "cpu":
        torch.cuda.set_rng_state(state["random_cuda"].cpu(), device)
