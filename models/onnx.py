"""ONNX models written from arrays, without the package onnx: nodes, initialisers and the model's bytes.

Owns the part of the protobuf encoding that Graph needs (onnx.proto of ONNX 1.16, IR version 9). Large initialisers
stay outside of the bytes: the caller hands them to onnxruntime as they are, so that weights are copied once less.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

IR_VERSION: Final = 9
OPSET: Final = 18
MICROSOFT: Final = "com.microsoft"
"""The domain of onnxruntime's fused operators."""
_VARINT, _LENGTH, _FIXED32 = 0, 2, 5
_TYPES: Final = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}
_EXTERNAL: Final = 1

Size = int | str
"""A dimension: a number, or the name of a size that is known at run time."""


class Graph:
    """A graph in the making. `weights` are the initialisers that stay outside of the model's bytes, by name."""

    def __init__(self) -> None:
        self.weights: dict[str, NDArray[np.float32]] = {}
        self._nodes: list[bytes] = []
        self._initialisers: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[Size]) -> str:
        """Declare an input of the model."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Sequence[Size]) -> None:
        """Declare the value `name` as an output of the model."""
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A small initialiser, inside of the model's bytes."""
        content = np.ascontiguousarray(array)
        self._initialisers.append(_tensor(name, content) + _bytes(9, content.tobytes()))
        return name

    def weight(self, name: str, array: NDArray[np.float32]) -> str:
        """A large initialiser, outside of the model's bytes."""
        self.weights[name] = np.ascontiguousarray(array)
        self._initialisers.append(
            _tensor(name, array) + _bytes(13, _bytes(1, b"location") + _bytes(2, b"memory")) + _number(14, _EXTERNAL)
        )
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output; returns the output's name. Attributes are int, float or a sequence of int."""
        self.split(operator, inputs, [output], domain, **attributes)
        return output

    def split(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> Sequence[str]:
        """A node with several outputs; returns the outputs' names."""
        names = [_bytes(1, name.encode()) for name in inputs] + [_bytes(2, name.encode()) for name in outputs]
        settings = [_bytes(5, _attribute(name, value)) for name, value in attributes.items()]
        self._nodes.append(b"".join([*names, _bytes(4, operator.encode()), *settings, _bytes(7, domain.encode())]))
        return outputs

    def model(self) -> bytes:
        """The model's bytes (ModelProto)."""
        parts = [(1, self._nodes), (5, self._initialisers), (11, self._inputs), (12, self._outputs)]
        graph = _bytes(2, b"graph") + b"".join(_bytes(field, each) for field, several in parts for each in several)
        opsets = [_bytes(1, domain.encode()) + _number(2, version) for domain, version in (("", OPSET), (MICROSOFT, 1))]
        return _number(1, IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, opset) for opset in opsets)


def _varint(number: int) -> bytes:
    content = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(content)) + content


def _attribute(name: str, value: float | Sequence[int]) -> bytes:
    """AttributeProto: the name, the value, and the number of the value's type."""
    if isinstance(value, int):
        content = _number(3, value) + _number(20, 2)
    elif isinstance(value, float):
        content = _varint(2 << 3 | _FIXED32) + struct.pack("<f", value) + _number(20, 1)
    else:
        content = b"".join(_number(8, each) for each in value) + _number(20, 7)
    return _bytes(1, name.encode()) + content


def _tensor(name: str, array: NDArray[Any]) -> bytes:
    """TensorProto without the values."""
    sizes = b"".join(_number(1, size) for size in array.shape)
    return sizes + _number(2, _TYPES[array.dtype]) + _bytes(8, name.encode())


def _value(name: str, dtype: type[np.generic], shape: Sequence[Size]) -> bytes:
    """ValueInfoProto of a tensor."""
    sizes = b"".join(
        _bytes(1, _number(1, size) if isinstance(size, int) else _bytes(2, size.encode())) for size in shape
    )
    tensor = _number(1, _TYPES[np.dtype(dtype)]) + _bytes(2, sizes)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))
