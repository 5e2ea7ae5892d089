"""Requests as bytes, joined from the memory of the callers' arrays in one copy.

Owns the writing of items. A packed `repeated double` is the little-endian array in memory, so that an item is a few
bytes of tags and lengths and the array itself. calls.py owns the fields beside the items.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np

from market_inference.client.arrays import Floats
from market_inference.client.inputs import arguments
from market_inference.client.inputs.items import Panel, Series
from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import inference_pb2 as pb

_DOUBLES: Final = np.dtype("<f8")
_SERIES: Final = pb.PredictRequest.DESCRIPTOR.fields_by_name["series"].number
_PANELS: Final = pb.ComputeIndicatorsRequest.DESCRIPTOR.fields_by_name["panels"].number
_SERIES_FIELDS: Final = {name: field.number for name, field in pb.Series.DESCRIPTOR.fields_by_name.items()}
_PANEL_FIELDS: Final = {name: field.number for name, field in pb.Panel.DESCRIPTOR.fields_by_name.items()}


def predict(given: Iterable[Series], rest: bytes) -> bytes:
    """The bytes of a PredictRequest; `rest`: the bytes of all fields but `series`."""
    number = _SERIES_FIELDS["values"]
    pieces: list[Any] = []
    for one in given:
        values = _packed(one.values)
        if one.past is None and one.times is None:
            pieces += _headers(_SERIES, one.source.symbol, ((number, values.nbytes),))
            pieces.append(values)
            continue
        columns: dict[str, Any] = {"values": values}
        if one.past is not None:
            columns["past_covariates"] = _packed(one.past)
        if one.future is not None:
            columns["future_covariates"] = _packed(one.future)
        if one.times is not None:
            columns["times"] = np.ascontiguousarray(one.times, dtype="<i8")
        sizes = tuple((_SERIES_FIELDS[name], column.nbytes) for name, column in columns.items())
        for header, column in zip(_headers(_SERIES, one.source.symbol, sizes), columns.values(), strict=True):
            pieces += (header, column)
    pieces.append(rest)
    return b"".join(pieces)


def indicators(given: Iterable[Panel], rest: bytes) -> bytes:
    """The bytes of a ComputeIndicatorsRequest; `rest`: the bytes of all fields but `panels`."""
    pieces: list[Any] = []
    for panel in given:
        columns = [_packed(values) for values in panel.columns.values()]
        sizes = tuple((_PANEL_FIELDS[name], values.nbytes) for name, values in zip(panel.columns, columns, strict=True))
        for header, values in zip(_headers(_PANELS, panel.source.symbol, sizes), columns, strict=True):
            pieces += (header, values)
    pieces.append(rest)
    return b"".join(pieces)


def _packed(values: Floats) -> Floats:
    """The array as it is on the wire: the same array where it is so already."""
    return np.ascontiguousarray(values, dtype=_DOUBLES)


@lru_cache(maxsize=4096)
def _headers(list_number: int, symbol: str, sizes: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
    """The bytes before each column of an item; `sizes`: field number and bytes of each column.

    An empty column is not written, as protobuf does. Raises ArgumentError for a symbol that UTF-8 cannot hold.
    """
    columns = [wireformat.header(number, size) if size else b"" for number, size in sizes]
    name = arguments.text(symbol, "symbol").encode()
    opening = b"".join(wireformat.pieces(_SERIES_FIELDS["symbol"], name)) if name else b""
    length = len(opening) + sum(map(len, columns)) + sum(size for _, size in sizes)
    return (wireformat.header(list_number, length) + opening + columns[0], *columns[1:])
