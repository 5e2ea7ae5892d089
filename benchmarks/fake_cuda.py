"""A CUDA device that is not there: tensors with shapes and devices but no values, and stand-ins where code reads them.

Owns the pretence. PyTorch's FakeTensorMode takes shapes and devices through a CUDA build's own operators and refuses
mixes; here come the steps between host and device, which it leaves out. What is run on it is check_cuda.py's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda")


class WrongDeviceError(RuntimeError):
    """A step that FakeTensorMode lets pass and a GPU does not, or not without waiting unseen."""


class Device(FakeTensorMode):
    """Tensors without values, single numbers too: FakeTensorMode keeps those as constants and computes with them."""

    def may_turn_const(self, tensor: Tensor) -> bool:
        return False


class Seen(TorchDispatchMode):
    """Counts operators on the device, and waits for it: copies from there to the host, which are all blocking."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.waits = 0

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        if function in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default):
            _refuse_foreign_index(arguments[0], arguments[1])
        result = function(*arguments, **(named or {}))
        if isinstance(result, Tensor):
            self.operators += result.is_cuda
            self.waits += result.is_cpu and any(isinstance(part, Tensor) and part.is_cuda for part in arguments)
        return result


class Host(TorchFunctionMode):
    """What the host does with tensors: pin them, and read values, where a half, one or true stands for each.

    Any other way to a value, such as a tensor as a condition, waits for the device where no reader of the code sees it,
    and stays FakeTensorMode's error.
    """

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: Sequence[Any] = (), named: Any = None
    ) -> Any:
        if function in (Tensor.numpy, Tensor.pin_memory):
            tensor = arguments[0]
            if not tensor.is_cpu:
                raise WrongDeviceError(f"{function.__name__}() of a tensor on {tensor.device}")
            return tensor if function is Tensor.pin_memory else _values(tensor)
        if function in (Tensor.tolist, Tensor.item):
            self._seen.waits += arguments[0].is_cuda
            values = _values(arguments[0])
            return values.tolist() if function is Tensor.tolist else values.item()
        return function(*arguments, **(named or {}))


@contextmanager
def pretended() -> Iterator[Seen]:
    """Within it, tensors on "cuda" can be made and computed with; a mix with one of the CPU raises a RuntimeError."""
    # Fake tensors have a tolist() of their own, which reads value by value and never comes to Host.
    with Device(), Seen() as seen, Host(seen), patch.object(FakeTensor, "tolist", Tensor.tolist):
        yield seen


def built(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> Any:
    """A network made on the pretended device, without values. Such networks can't be moved, so `to` leaves them."""
    with torch.device(CUDA):
        network: Any = make()
    for module in network.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
    network.to = lambda *arguments, **named: network
    return network.eval()


def _refuse_foreign_index(tensor: Tensor, indices: Sequence[Tensor | None]) -> None:
    """A host tensor can't be indexed from the device; the other way round costs a copy that waits."""
    for index in indices:
        if index is not None and index.device.type != tensor.device.type:
            raise WrongDeviceError(f"a tensor on {tensor.device} is indexed by one on {index.device}")


def _values(tensor: Tensor) -> Any:
    like = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return np.full(tuple(tensor.shape), 0.5 if like.kind == "f" else 1, dtype=like)
