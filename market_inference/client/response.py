"""Responses in their bytes: items and the rest, and the columns of many items as arrays without an object per item.

Owns the places of columns in an answer's bytes. decode.py makes the values that users get. Whatever is not written as
protobuf's writers do, is found by comparing tags and lengths, and read item by item instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from market_inference.client import checks
from market_inference.client.arrays import Floats
from market_inference.contract.encoding import split, twins, wireformat
from market_inference.contract.encoding.wireformat import NUMBER_BYTES
from market_inference.contract.generated import answers_pb2 as answers
from market_inference.errors import WRONG_ANSWER, InternalError

M = TypeVar("M", bound=Message)
Bytes = NDArray[np.uint8]
_DOUBLES: Final = np.dtype("<f8")
_MOST_LAYOUTS: Final = 64


def _number(kind: type[Message], field: str) -> int:
    return kind.DESCRIPTOR.fields_by_name[field].number


_SYMBOL: Final = _number(answers.SeriesForecastAnswer, "symbol")
RESULT: Final = _number(answers.SeriesForecastAnswer, "forecast")
"""The field of an item with the answer; the numbers are those of SeriesForecast and PanelIndicators alike."""
_POINT: Final = _number(answers.ForecastAnswer, "point")
_QUANTILES: Final = _number(answers.ForecastAnswer, "quantiles")
_INDICATORS: Final = _number(answers.IndicatorSetAnswer, "indicators")
_NAME: Final = _number(answers.IndicatorAnswer, "name")
_OUTPUTS: Final = _number(answers.IndicatorAnswer, "outputs")
_OUTPUT_NAME: Final = _number(answers.IndicatorOutputAnswer, "name")
_OUTPUT_VALUES: Final = _number(answers.IndicatorOutputAnswer, "values")


def parse(kind: type[M], raw: bytes) -> M:
    """A message from bytes. Raises InternalError for bytes that are no such message."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        text = f"the service sent bytes that are no {kind.DESCRIPTOR.name}"
        raise InternalError(text, code="INTERNAL", reason=WRONG_ANSWER) from None


def twin(kind: type[Message], raw: bytes) -> Any:
    """A message of a public type, read through its twin, where columns are bytes. Raises InternalError."""
    found = twins.read(kind, raw)
    return twins.TWINS[kind].FromString(twins.rewrite(parse(kind, raw))) if found is None else found


class Response(NamedTuple):
    """A response with answers to items: `items` in their bytes, and `rest`, the twin's message of all other fields.

    Of single() the item is the twin's message, and `rest` the whole message.
    """

    items: Sequence[Any]
    rest: Any


def read(kind: type[Message], raw: bytes, count: int) -> Response:
    """A response of the type `kind` to `count` items. Raises InternalError for another number of answers."""
    found = split.split_items(kind, raw)
    if found is None or len(found.items) != count:
        found = split.split_items(kind, twins.rewrite(parse(kind, raw)))
    if found is None or len(found.items) != count:
        sent = twin(kind, raw)
        raise checks.wrong(
            split.ITEMS[kind], f"{count} answers", len(getattr(sent, split.ITEMS[kind])), sent.request_id
        )
    return Response(found.items, twin(kind, found.rest))


def single(kind: type[Message], raw: bytes) -> Response:
    """A response of the type `kind` to one item, which is read, too. Raises InternalError as read()."""
    message = twin(kind, raw)
    items = getattr(message, split.ITEMS[kind])
    if len(items) != 1:
        raise checks.wrong(split.ITEMS[kind], "1 answer", len(items), message.request_id)
    return Response(items, message)


def result_of(item: memoryview, symbol: str) -> memoryview | None:
    """The bytes of the answer in an item (field RESULT) with the symbol.

    None for an error, another symbol, and an item in another order.
    """
    head = _heads(symbol)
    at = len(head)
    if item[:at] != head:
        return None
    try:
        size, at = wireformat.read_varint(item, at)
    except IndexError:
        return None
    return item[at:] if at + size == len(item) else None


@lru_cache(maxsize=4096)
def _heads(symbol: str) -> bytes:
    """The bytes of an item before the length of the answer."""
    name = symbol.encode()
    return b"".join((*(wireformat.pieces(_SYMBOL, name) if name else ()), wireformat.header(RESULT, 0)[:1]))


class Columns(NamedTuple):
    """`point` [n, horizon] and `quantiles` [n, horizon, levels] of many forecasts; `end`: the bytes of both in each."""

    point: Floats
    quantiles: Floats
    end: int


def forecasts(bodies: Sequence[memoryview], horizon: int, levels: int) -> Columns | None:
    """The columns of Forecast messages in their bytes. None where one of them does not begin with the two columns."""
    numbers = horizon * levels
    heads = (
        wireformat.header(_POINT, horizon * NUMBER_BYTES),
        wireformat.header(_QUANTILES, numbers * NUMBER_BYTES),
    )
    start = len(heads[0])
    middle = start + horizon * NUMBER_BYTES
    second = middle + len(heads[1])
    end = second + numbers * NUMBER_BYTES
    raw = b"".join([body[:end] for body in bodies])
    if len(raw) != end * len(bodies):
        return None
    block = np.frombuffer(raw, np.uint8).reshape(len(bodies), end)
    for head, at in zip(heads, (0, middle), strict=True):
        if (block[:, at : at + len(head)] != np.frombuffer(head, np.uint8)).any():
            return None
    quantiles = doubles(block[:, second:end]).reshape(len(bodies), horizon, levels)
    return Columns(doubles(block[:, start:middle]), quantiles, end)


def doubles(raw: Bytes) -> Floats:
    """Bytes [n, 8 * size] of doubles as a new array [n, size] float64."""
    return np.array(raw, order="C").view(_DOUBLES)


class Column(NamedTuple):
    """One output of one indicator of a request: the indicator's position, the output's name, and the bytes' offsets."""

    indicator: int
    output: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The places of the columns in an IndicatorSet's bytes.

    Panels of one request with equally many bars are written alike: one panel's layout is the layout of all when their
    bytes are equal at `edges`, the offsets of everything but numbers.
    """

    size: int
    names: tuple[str, ...]
    """Of the indicators."""
    columns: tuple[Column, ...]
    edges: NDArray[np.intp]
    frame: bytes
    """The bytes at the edges."""

    @classmethod
    def of(cls, raw: memoryview) -> "Layout | None":
        """The layout of one IndicatorSet; None for bytes in another form than protobuf writes."""
        columns: list[Column] = []
        names: list[str] = []
        try:
            for position, (number, start, stop) in enumerate(wireformat.places(raw, 0, len(raw))):
                if number != _INDICATORS:
                    return None
                names.append("")
                for inner, first, last in wireformat.places(raw, start, stop):
                    if inner == _OUTPUTS:
                        columns.append(_column(raw, position, first, last))
                    elif inner == _NAME:
                        names[-1] = str(raw[first:last], "utf-8")
        except (ValueError, IndexError):
            return None
        numbers = np.zeros(len(raw), dtype=bool)
        for column in columns:
            numbers[column.start : column.stop] = True
        edges = np.flatnonzero(~numbers)
        return cls(len(raw), tuple(names), tuple(columns), edges, np.frombuffer(raw, np.uint8)[edges].tobytes())

    @classmethod
    def known(cls, raw: memoryview) -> "Layout | None":
        """As of(): programs ask for the same indicators at every bar, so the layout is mostly one of the latest."""
        layout = _latest.get(len(raw))
        if layout is not None and np.frombuffer(raw, np.uint8)[layout.edges].tobytes() == layout.frame:
            return layout
        layout = cls.of(raw)
        if layout is not None:
            if len(_latest) >= _MOST_LAYOUTS:
                _latest.clear()
            _latest[len(raw)] = layout
        return layout

    def block(self, bodies: Sequence[memoryview]) -> Bytes | None:
        """IndicatorSets of this layout as one array [n, size] of bytes; None when one has another layout."""
        if any(len(body) != self.size for body in bodies):
            return None
        block = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), self.size)
        edges = block[:, self.edges]
        return block if (edges == edges[0]).all() else None

    @property
    def shape(self) -> checks.Shape:
        """The names and sizes of the columns."""
        outputs: list[list[tuple[str, int]]] = [[] for _ in self.names]
        for column in self.columns:
            outputs[column.indicator].append((column.output, (column.stop - column.start) // NUMBER_BYTES))
        return tuple(zip(self.names, map(tuple, outputs), strict=True))

    @staticmethod
    def values(body: memoryview, column: Column) -> Floats:
        """One column of one IndicatorSet of this layout as a new array."""
        return np.frombuffer(body, _DOUBLES, (column.stop - column.start) // NUMBER_BYTES, column.start).copy()


_latest: dict[int, Layout] = {}
"""By size."""


def _column(raw: memoryview, position: int, start: int, stop: int) -> Column:
    """One IndicatorOutput. Raises ValueError for fields given twice or unknown."""
    found: dict[int, tuple[int, int]] = {}
    for number, first, last in wireformat.places(raw, start, stop):
        if number in found or number not in (_OUTPUT_NAME, _OUTPUT_VALUES):
            raise ValueError(f"field {number}")
        found[number] = (first, last)
    first, last = found.get(_OUTPUT_NAME, (stop, stop))
    column = Column(position, str(raw[first:last], "utf-8"), *found.get(_OUTPUT_VALUES, (stop, stop)))
    if (column.stop - column.start) % NUMBER_BYTES:
        raise ValueError("a part of a number")
    return column
