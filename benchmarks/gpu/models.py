r"""What is trained: a discrete VAE 784-200-(K x C)-200-784 with any estimator, and Gumbel-softmax in plain PyTorch."""

import importlib
import math
import time
from collections.abc import Callable

import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hardmax.estimators import Estimator
from hardmax.paths import CONFIGS
from hardmax.tasks.data import Images
from hardmax.tasks.dvae import DiscreteVAE

FOLDER = CONFIGS / "estimator"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.yaml"))]
TOO_MANY = ("exact", "sparse_expectation")  # of 10 ** 20 configurations
FEW = ["arsm", "gumbel_softmax", "nvil", "reinforce", "sum_and_sample", "vimco"]  # of a test
LEAVE_ONE_OUT = "reinforce, 4 leave-one-out"
BY_HAND = "by hand"
PIXELS, WIDTH, RATE = 784, 200, 1e-4
EXAMPLES = 1000


def make(name: str) -> Estimator:
    r"""The estimator of a file of the configs, without Hydra."""
    if name == LEAVE_ONE_OUT:
        return make_with("reinforce", samples=4, baseline="leave_one_out")
    return make_with(name)


def make_with(name: str, **options: object) -> Estimator:
    settings = yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) | options
    module, _, kind = settings.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), kind)(**{k: number(v) for k, v in settings.items()})


def number(value: object) -> object:
    r"""1e6 is a text to PyYAML, and a number to Hydra."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def names(small: bool) -> list[str]:
    r"""Of all estimators that can be trained, or of a few for a test."""
    return FEW if small else [name for name in NAMES if name not in TOO_MANY]


class Training:
    r"""A model, an estimator and Adam, on images of noise; everything on the device.

    Arguments:
        name: Of the estimator.
        device: Where.
        K, C, batch: Sizes.
        seed: Of parameters and images' pixels.
    """

    def __init__(self, name: str, device: str, K: int = 20, C: int = 10, batch: int = 100, seed: int = 0):
        torch.manual_seed(seed)
        self.estimator = make(name)
        grey = torch.rand(max(batch, EXAMPLES), PIXELS, generator=torch.Generator().manual_seed(1))
        kl = "sampled" if self.estimator.target == "bound" else "analytic"
        widths, data = [WIDTH], Images(grey, grey[:batch], grey[:batch])
        self.task = DiscreteVAE(K, C, encoder_widths=widths, decoder_widths=widths, kl=kl, data=data)
        self.task.to(device), self.estimator.to(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.index = torch.arange(batch, device=device)
        self.estimator.eval()
        self.loss(self.images())  # lets learned parts take their sizes
        self.estimator.train()
        groups = [list(self.task.parameters()), list(self.estimator.parameters())]
        self.optimizer = torch.optim.Adam([{"params": g} for g in groups if g], lr=RATE, fused=True)

    def images(self) -> Tensor:
        return self.task.batch(self.index, self.generator)

    def loss(self, images: Tensor) -> Tensor:
        problem = self.task.problem(images)
        cost = self.estimator(problem.logits, problem.objective, problem.context, problem.log_q)
        return (cost + problem.penalty).mean()

    def step(self) -> None:
        images = self.images()
        self.optimizer.zero_grad()
        self.loss(images).backward()
        self.optimizer.step()
        self.estimator.advance()

    def state(self) -> dict:
        r"""All that training goes on from, but for the global random streams."""
        parts = (self.task, self.estimator, self.optimizer)
        return {"parts": [part.state_dict() for part in parts], "generator": self.generator.get_state()}

    def restore(self, state: dict) -> None:
        of_task, of_estimator, of_optimizer = state["parts"]
        self.task.load_state_dict(of_task), self.estimator.load_state_dict(of_estimator)
        self.optimizer.load_state_dict(of_optimizer)
        self.generator.set_state(state["generator"].cpu())


class ByHand:
    r"""Gumbel-softmax on the same model with everything spelled out."""

    def __init__(self, device: str, K: int = 20, C: int = 10, batch: int = 100):
        network = lambda a, b: nn.Sequential(nn.Linear(a, WIDTH), nn.ReLU(), nn.Linear(WIDTH, b)).to(device)
        self.sizes, self.encoder, self.decoder = (K, C), network(PIXELS, K * C), network(K * C, PIXELS)
        self.grey = torch.rand(batch, PIXELS, device=device)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)

    def images(self) -> Tensor:
        return self.grey.bernoulli()

    def loss(self, images: Tensor) -> Tensor:
        logits = self.encoder(images).unflatten(-1, self.sizes)
        noise = -torch.empty_like(logits).exponential_().log()
        pixels = self.decoder(((logits + noise) / 1.0).softmax(-1).flatten(-2))
        log_p = logits.log_softmax(-1)
        kl = (log_p.exp() * (log_p + math.log(self.sizes[1]))).sum((-2, -1))
        return (binary_cross_entropy_with_logits(pixels, images, reduction="none").sum(-1) + kl).mean()

    def step(self) -> None:
        images = self.images()
        self.optimizer.zero_grad()
        self.loss(images).backward()
        self.optimizer.step()


def training(name: str, device: str, **sizes: int) -> Training | ByHand:
    r"""Of an estimator, or what is written by hand."""
    return ByHand(device, **sizes) if name == BY_HAND else Training(name, device, **sizes)


def wait_for(device: str) -> None:
    r"""Until everything that the device was asked for is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], times: int, device: str) -> float:
    r"""Of so many calls, to the end of what they asked of the device."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    return time.perf_counter() - start
