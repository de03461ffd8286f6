import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

START = time.monotonic()
import torch  # noqa: E402

from hardmax.files import write_whole  # noqa: E402

from . import page  # noqa: E402
from .compiled import compiled  # noqa: E402
from .jobs import jobs  # noqa: E402
from .parts import Part, run_part  # noqa: E402
from .right import certification, draws, resume  # noqa: E402
from .speed import gradient_draws, memory, steps  # noqa: E402


def machine(part: Part) -> None:
    r"""Which device this is, and what drives it."""
    part.each(lambda name: about(part.device), ["machine"])


def about(device: str) -> dict:
    found = {"torch": str(torch.__version__), "python": platform.python_version(), "cores": os.cpu_count()}
    if device == "cpu":
        return found | {"device": device, "name": f"a processor of {os.cpu_count()} cores, one thread"}
    torch.zeros(1, device=device)
    its = torch.cuda.get_device_properties(device)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    return found | {
        "device": device, "name": its.name, "memory": its.total_memory, "cuda": torch.version.cuda, "tf32": tf32
    }  # fmt: skip


# Each with its share of the time that is left when it begins: what one leaves goes to those after it.
PARTS = {
    machine: 20,
    certification: 60,
    draws: 15,
    steps: 50,
    resume: 30,
    jobs: 60,
    gradient_draws: 25,
    memory: 50,
    compiled: 70,
}


def measure(device: str, small: bool, limit: float, folder: Path) -> dict:
    r"""Runs all parts within so many seconds of the start of this process; writes what there is after each."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict = {"parts": {}, "small": small, "limit": limit}
    for n, work in enumerate(PARTS):
        left = limit - (time.monotonic() - START) - 5
        share = list(PARTS.values())[n] / sum(list(PARTS.values())[n:])
        part = Part(device, small, time.monotonic() + left * share, folder / f"{work.__name__}.json")
        found["parts"][work.__name__] = its = run_part(work, part)
        found["seconds"] = round(time.monotonic() - START, 1)
        errors = [its.get("error", ""), *(line.get("error", "") for line in its["lines"].values())]
        print(
            f"{work.__name__}: {its['seconds']:.0f} s, {len(its['lines'])} lines, {sum(map(bool, errors))} errors, "
            f"{len(its['left_out'])} left out",
            flush=True,
        )
        if work is machine and any(errors):
            raise SystemExit(f"{device} cannot be used: {' '.join(filter(None, errors))}")
        write(found, folder)
    return found


def write(found: dict, folder: Path) -> None:
    write_whole(folder / "gpu.json", json.dumps(found, indent=1) + "\n")
    try:
        write_whole(folder / "gpu.md", page.written(found))
    except Exception as error:  # the figures are there, and the page can be written again
        print(f"no page: {type(error).__name__}: {error}", file=sys.stderr)


def main() -> None:
    torch.set_num_threads(1)  # also because its threads do not survive a fork
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looking for GPUs then does not start CUDA here
    asking = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    asking.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu")
    asking.add_argument("--to", type=Path, default=Path("output/gpu"), metavar="FOLDER")
    asking.add_argument("--seconds", type=float, default=280, help="for everything")
    asking.add_argument("--small", action="store_true", help="a few estimators and small sizes, as in a test")
    asking.add_argument("--page", nargs=2, type=Path, metavar=("JSON", "MD"), help="only write the page again")
    given = asking.parse_args()
    if given.page:
        given.page[1].write_text(page.written(json.loads(given.page[0].read_text())), encoding="utf-8")
    else:
        if given.device == "cpu":  # once, rather than in each part; with a GPU nothing must touch it here
            importlib.import_module("torch._dynamo")
        measure("cuda:0" if given.device == "cuda" else given.device, given.small, given.seconds, given.to)


if __name__ == "__main__":
    main()
