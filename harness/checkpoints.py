r"""What a checkpoint holds: it may be damaged, or come from anyone, and is looked at before it is used."""

import contextlib
import copy
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .shared import Refused, one_line

# All that is called when a checkpoint is read: anything else that torch admits could take memory without having it.
REBUILT = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}


class Unreadable(Refused):
    r"""A file is no checkpoint of this run."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    r"""Within it, whatever a broken file leads to is raised as :class:`Unreadable`."""
    try:
        yield
    except Exception as error:
        raise Unreadable(f"{path} cannot be read ({type(error).__name__}: {one_line(error)[:120]})") from error


def contents(path: Path, device: torch.device) -> dict:
    r"""What :meth:`hardmax.harness.state.State.save` wrote: ``state`` and ``sizes``.

    Nothing in the file is run, and no more memory is taken than it has bytes.

    Raises:
        Exception: Of any kind, if it is no such file.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise ValueError("it would unpack to more bytes than its entries have")
        (name,) = (name for name in archive.namelist() if name.lower().endswith("data.pkl"))
        called = {str(what) for code, what, _ in pickletools.genops(archive.read(name)) if code.name == "GLOBAL"}
    if others := sorted(what for what in called - REBUILT if not what.endswith("Storage")):
        raise ValueError(f"it calls {', '.join(others)}")
    found = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in ("state", "sizes")):
        raise ValueError("it has no state, or no sizes")
    return found


def check_form(found: Any, expected: object, where: str) -> None:
    r"""Compares keys, types, and shapes of tensors; what is empty before training may have grown.

    Raises:
        ValueError: Naming the first entry that does not match.
    """
    rate = where.endswith(".lr") and type(found) in (int, float)
    same = rate or type(found) is type(expected)
    if same and isinstance(expected, Tensor):
        held = found.untyped_storage().nbytes() // found.element_size()
        grown = expected.dim() == 1 and not expected.numel() and found.dim() == 1
        same = found.numel() <= held and (grown or found.shape == expected.shape) and found.dtype == expected.dtype
    elif same and isinstance(expected, dict):
        same = not expected or found.keys() == expected.keys()
        for key in expected if same else ():
            check_form(found[key], expected[key], f"{where}.{key}")
    elif same and isinstance(expected, list | tuple):
        same = len(found) == len(expected)
        for n, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
            check_form(ours, theirs, f"{where}.{n}")
    if not same:
        raise ValueError(f"{where} does not match this run (type, keys or shape)")


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    r"""Whether an optimiser can go on from its state, which has no form before the first step: a copy of it tries.

    Raises:
        Exception: Of any kind, if it cannot.
    """
    for parameter, own in optimizer.state.items():
        for name, value in own.items():
            if isinstance(value, Tensor) and value.shape not in ((), parameter.shape):
                raise ValueError(f"the optimiser's {name} has the shape {list(value.shape)}")
    trial = copy.deepcopy(optimizer)
    for parameter in (p for group in trial.param_groups for p in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
