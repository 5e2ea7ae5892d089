"""A simulated CUDA device: tensors with shapes and devices but without values, and placeholders for reads of values.

PyTorch's FakeTensorMode propagates shapes and devices through the operators of a CUDA build and refuses mixes of
devices. Owns the steps that FakeTensorMode leaves out: copies and reads between host and device. The checked code paths
are in check_cuda.py.
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
    """A step that FakeTensorMode allows, but that fails on a GPU or waits for the GPU implicitly."""


class Device(FakeTensorMode):
    """FakeTensorMode without constants: single numbers have no values either."""

    def may_turn_const(self, tensor: Tensor) -> bool:
        return False


class Seen(TorchDispatchMode):
    """Counts operators on the device, and waits for the device: all copies to the host are blocking."""

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
    """Operations of the host on tensors: pinning memory, and reading values (as placeholders 0.5, 1 or true).

    Any other read of a value, such as a tensor as a condition, waits for the device implicitly, and remains an error of
    FakeTensorMode.
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
def simulated() -> Iterator[Seen]:
    """A block with a simulated device "cuda"; mixing CPU and CUDA tensors in an operator raises a RuntimeError."""
    # FakeTensor.tolist() reads value by value and would bypass Host.
    with Device(), Seen() as seen, Host(seen), patch.object(FakeTensor, "tolist", Tensor.tolist):
        yield seen


def built(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> Any:
    """A network constructed on the simulated device, without values. Moving is impossible, so `to` does nothing."""
    with torch.device(CUDA):
        network: Any = make()
    for module in network.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
    network.to = lambda *arguments, **named: network
    return network.eval()


def _refuse_foreign_index(tensor: Tensor, indices: Sequence[Tensor | None]) -> None:
    """Raise for an index on another device: indexing a host tensor fails on a GPU, the reverse copies and waits."""
    for index in indices:
        if index is not None and index.device.type != tensor.device.type:
            raise WrongDeviceError(f"a tensor on {tensor.device} is indexed by one on {index.device}")


def _values(tensor: Tensor) -> Any:
    like = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return np.full(tuple(tensor.shape), 0.5 if like.kind == "f" else 1, dtype=like)
