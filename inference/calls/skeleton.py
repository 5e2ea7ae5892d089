"""The bytes around the numbers of an answer: all that stays the same from one item to the next.

Owns the layout of PanelIndicators and SeriesForecast of the contract as they lie on the wire (protobuf: a
length-delimited field is its tag, its length, its bytes). Live users ask for the same at every bar, so that writing an
answer comes down to joining these constant pieces with the numbers; the twins in answers.proto do the same field by
field, several times slower. Tests hold the two together.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import answers_pb2, inference_pb2
from models.forecast import Forecast
from models.indicators import Program
from models.warning import AnswerWarning

NOMINAL_COVERAGE = 0.8
_FLOAT64_BYTES = 8


def forecast(answer: Forecast) -> bytes:
    """A serialised Forecast."""
    point, quantiles, figures = answer.point.tobytes(), answer.quantiles.tobytes(), _figures(*answer[2:7])
    pieces = (wireformat.header(1, len(point)), point, wireformat.header(2, len(quantiles)), quantiles, figures)
    return b"".join((*pieces, _warnings(answer.warnings)) if answer.warnings else pieces)


@lru_cache(maxsize=4096)
def _figures(gate: float, logs: bool, context: int, coverage: float, origins: int) -> bytes:
    """What comes after a forecast's numbers. Series of one length differ in few of these."""
    measured = inference_pb2.Coverage(nominal=NOMINAL_COVERAGE, measured=coverage, origins=origins)
    return answers_pb2.ForecastAnswer(coverage=measured, gate=gate, logs=logs, context=context).SerializeToString()


def _warnings(found: Sequence[AnswerWarning]) -> bytes:
    """The field ``warnings`` of a forecast; not cached, since evidence differs from series to series."""
    answer = answers_pb2.ForecastAnswer()
    for one in found:
        warning = answer.warnings.add(code=f"WARNING_CODE_{one.code}", message=one.message)
        for name, values in one.evidence:
            warning.evidence.add(name=name, values=values)
    return answer.SerializeToString()


def panel(program: Program, rows: Sequence[Any]) -> tuple[int, list[Any]]:
    """A serialised IndicatorSet: its size and its pieces.

    `rows` are contiguous float64 arrays, one per output of the program.
    """
    rows = list(rows)
    size, heads = _heads(program, tuple(map(len, rows)))
    pieces: list[Any] = [None] * (2 * len(rows))
    pieces[::2], pieces[1::2] = heads, rows
    return size, pieces


@lru_cache(maxsize=4096)
def item(symbol: str, size: int) -> bytes:
    """What comes before an item's answer of so many bytes in a list of SeriesForecast, or of PanelIndicators."""
    opening = answers_pb2.SeriesForecastAnswer(symbol=symbol).SerializeToString() + wireformat.header(2, size)
    return wireformat.header(1, len(opening) + size) + opening


@lru_cache(maxsize=1024)
def _heads(program: Program, lengths: tuple[int, ...]) -> tuple[int, tuple[bytes, ...]]:
    """What comes before each row, and the size of all with the rows."""
    found: list[bytes] = []
    total = 0
    for call, outputs in zip(program.calls, program.rows, strict=True):
        heads, inner = [], 0
        for name, length in zip(program.outputs[outputs], lengths[outputs], strict=True):
            size = length * _FLOAT64_BYTES
            # An empty field is not written, which a reader takes for an empty list all the same.
            head = answers_pb2.IndicatorOutputAnswer(name=name).SerializeToString() + wireformat.header(2, size)
            heads.append(wireformat.header(2, len(head) + size) + head)
            inner += len(heads[-1]) + size
        named = answers_pb2.IndicatorAnswer(name=call.function.name).SerializeToString()
        opening = wireformat.header(1, len(named) + inner) + named
        heads[0] = opening + heads[0]
        total += len(opening) + inner
        found += heads
    return total, tuple(found)
