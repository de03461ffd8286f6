"""A device that is not there: what is on it has a shape, a precision and a place, and no values."""

import contextlib
import weakref

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME = "npu"
READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "bincount", "_linalg_check_errors")


class Device(FakeTensorMode):
    """Copies of what is on it are on it as well."""

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)

    def __deepcopy__(self, memo):
        return self


class Watch(TorchDispatchMode):
    """Notes what makes a GPU wait: values, or sizes, that Python asks for, and what comes from the processor.

    Values asked for are all 1, and there is one of each size.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name, keywords = function.__name__.split(".")[0], keywords or {}
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in arguments[1]):
            self.found.append("a mask as index")
            x, mask = arguments[0], arguments[1][-1]
            return x.new_zeros(1, *x.shape[mask.ndim :])
        if any(name == read or name.startswith(f"{read}_") or name.startswith(f"_{read}") for read in READS):
            if on_it(arguments):
                self.found.append(name)
            if name == "equal" or any(isinstance(x, FakeTensor) for x in tensors(arguments)):
                return answer(name, *arguments, **keywords)
        if name.startswith("_thnn_fused_gru_cell"):
            return gru_cell(*arguments) if name.endswith("cell") else gru_cell_backward(*arguments)
        given = tensors(arguments, keywords)
        result = function(*arguments, **keywords)
        if tensors(result) and on_it(result) != (on_it(given) or not given):
            self.found.append(f"{name} from the processor, or to it")
        return result


class Memory(TorchDispatchMode):
    """Adds up the bytes of what lives at a time, views of the same counted once."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for x in tensors(result):
            storage = x.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known:
                self.known.add(key)
                self.live += size
                weakref.finalize(storage, self.free, key, size)
        self.peak = max(self.peak, self.live)
        return result

    def free(self, key, size):
        self.known.discard(key)
        self.live -= size


def tensors(*places):
    return [x for x in tree_leaves(places) if isinstance(x, torch.Tensor)]


def on_it(*places):
    return any(x.device.type == NAME for x in tensors(*places))


def answer(name, x, other=None, minlength=1):
    match name:
        case "_local_scalar_dense":
            return 1.0 if x.is_floating_point() else x.dtype == torch.bool or 1
        case "nonzero":
            return x.new_zeros(1, x.ndim, dtype=torch.long)
        case "bincount":
            return x.new_zeros(minlength)
        case "equal":
            return True
    raise NotImplementedError(name)


def gru_cell(input_gates, hidden_gates, state, *biases):
    """What PyTorch has on GPUs, and knows no sizes of: the next state, and what is kept for the backward pass."""
    return torch.empty_like(state), state.new_empty(len(state), 5 * state.shape[-1])


def gru_cell_backward(gradient, kept, has_bias):
    B, H = gradient.shape
    gates, bias = gradient.new_empty(B, 3 * H), gradient.new_empty(3 * H)
    return gates, gates.clone(), torch.empty_like(gradient), bias, bias.clone()


def move(module, device):
    """As ``module.to(device)``, which PyTorch cannot do."""
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, x in kind.items():
                if x is not None and x.device.type != NAME:
                    moved = torch.empty(x.shape, dtype=x.dtype, device=device)
                    kind[name] = nn.Parameter(moved, x.requires_grad) if isinstance(x, nn.Parameter) else moved
    return module


def register():
    if torch._C._get_privateuse1_backend_name() != NAME:
        torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME)


@contextlib.contextmanager
def absent_device(monkeypatch):
    """Within it there is the device ``npu``, and what it is given is watched."""
    register()
    make, of_processor = torch.tensor, torch.Generator

    def tensor(data, *, device=None, **more):
        made = make(data, **more)
        if device is None:
            return made
        watch.found.append("torch.tensor")
        return torch.empty(made.shape, dtype=made.dtype, device=device)

    class Generator(torch.Generator):
        def __new__(cls, device=None):
            return of_processor()

    with monkeypatch.context() as patch, Device(), Watch() as watch:
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(nn.Module, "to", move)
        yield watch
