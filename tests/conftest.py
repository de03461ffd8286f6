import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"


def pytest_addoption(parser):
    parser.addoption("--seeds", type=int, default=1, help="under how many seeds to run every test, instead of seed 0")


def pytest_generate_tests(metafunc):
    if (seeds := metafunc.config.getoption("seeds")) > 1:
        metafunc.parametrize("seeded", range(seeds), indirect=True)


@pytest.fixture(autouse=True)
def seeded(request):
    """Every test begins with the same random numbers, whatever ran before it in its process."""
    import torch

    torch.manual_seed(getattr(request, "param", 0))
