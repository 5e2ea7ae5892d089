"""The bytes around the rows of an indicator answer: all that stays the same from one panel to the next.

Owns one layout, PanelIndicators of the contract as it lies on the wire (protobuf: a length-delimited field is
its tag, its length, its bytes). Live users ask for the same indicators at every bar, so that writing an answer comes
down to joining these constant pieces with the rows; the twin in answers.proto does the same field by field, ten times
slower. A test holds the two together.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from market.inference.v1 import answers_pb2
from models.indicators import Program

_FLOAT64_BYTES = 8


def panel(symbol: str, program: Program, rows: Sequence[Any]) -> bytes:
    """A serialised PanelIndicators. `rows` are contiguous float64 arrays, one per output of the program."""
    pieces = _pieces(symbol, program, tuple([len(row) for row in rows]))
    joined: list[Any] = []
    for piece, row in zip(pieces, rows, strict=True):
        joined += (piece, row)
    return b"".join(joined)


@lru_cache(maxsize=4096)
def field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=1024)
def _pieces(symbol: str, program: Program, lengths: tuple[int, ...]) -> tuple[bytes, ...]:
    """What comes before each row."""
    pieces: list[bytes] = []
    total = 0
    for call, outputs in zip(program.calls, program.rows, strict=True):
        heads, inner = [], 0
        for name, length in zip(program.outputs[outputs], lengths[outputs], strict=True):
            size = length * _FLOAT64_BYTES
            # An empty field is not written, which a reader takes for an empty list all the same.
            head = answers_pb2.IndicatorOutputAnswer(name=name).SerializeToString() + field(2, size)
            heads.append(field(2, len(head) + size) + head)
            inner += len(heads[-1]) + size
        named = answers_pb2.IndicatorAnswer(name=call.function.name).SerializeToString()
        opening = field(1, len(named) + inner) + named
        heads[0] = opening + heads[0]
        total += len(opening) + inner
        pieces += heads
    pieces[0] = answers_pb2.PanelIndicatorsAnswer(symbol=symbol).SerializeToString() + field(2, total) + pieces[0]
    return tuple(pieces)
