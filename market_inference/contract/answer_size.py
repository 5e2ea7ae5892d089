"""The size of an answer, known from the request alone, before anything is computed.

Owns one function per RPC with large answers, which methods.py names in the RPC's row: the bytes of the answer's numbers
and a bound for its names. The limit, `max_answer_bytes`, stands in the .proto file.
"""

from operator import attrgetter
from typing import Final, NamedTuple

from google.protobuf.message import Message

from market_inference.contract.encoding.wireformat import NUMBER_BYTES
from market_inference.contract.generated import inference_pb2, requests_pb2
from market_inference.contract.short_cache import bytes_of_all, short_cache

DEFAULT_LEVELS: Final = 9
"""Quantile levels of a forecast when the request gives none."""
OUTPUTS: Final = {
    "ACCBANDS": 3,
    "AROON": 2,
    "BBANDS": 3,
    "DONCHIAN": 3,
    "ERI": 2,
    "FRACTAL": 2,
    "HA": 4,
    "HT_PHASOR": 2,
    "HT_SINE": 2,
    "KC": 3,
    "KDJ": 3,
    "MACD": 3,
    "MACDEXT": 3,
    "MACDFIX": 3,
    "MAMA": 2,
    "MINMAX": 2,
    "MINMAXINDEX": 2,
    "SMI": 2,
    "STOCH": 2,
    "STOCHF": 2,
    "STOCHRSI": 2,
    "SUPERTREND": 2,
    "VORTEX": 2,
}
"""TA-Lib functions with more than one output, and the number of outputs."""
# Names, coverage, gate and the frames of the fields around the numbers.
_ITEM_BYTES: Final = 160
_OUTPUT_BYTES: Final = 48
# A share, and a count below 128 in nearly all cases.
_PHASE_BYTES: Final = NUMBER_BYTES + 2
# Label, probabilities and all warnings of a text.
_TEXT_BYTES: Final = 1024
MOST_PHASES: Final = 1440
"""Phases of a series with times, when the request gives no period."""
_TIMES: Final = attrgetter("times")


def predict(request: requests_pb2.PredictColumns) -> int:
    levels, period, horizon = len(request.quantiles) or DEFAULT_LEVELS, request.period, request.horizon
    of_phases, series = period * _PHASE_BYTES, request.series
    if any(map(_TIMES, series)):
        of_phases = (period or MOST_PHASES) * _PHASE_BYTES + horizon * 2
    return len(series) * (horizon * (levels + 1) * NUMBER_BYTES + of_phases + _ITEM_BYTES)


def sentiments(request: inference_pb2.AnalyzeSentimentRequest) -> int:
    return len(request.texts) * _TEXT_BYTES


def indicators(request: requests_pb2.ComputeIndicatorsColumns) -> int:
    outputs = _outputs(tuple(request.indicators))
    total = 0
    for panel in request.panels:
        bars = len(panel.close) // NUMBER_BYTES
        values = outputs.whole * bars
        for count, last in outputs.cut:
            values += count * min(bars, last)
        total += values * NUMBER_BYTES + outputs.head_bytes
    return total


class _Outputs(NamedTuple):
    """The outputs of a request's indicators: how many have all bars, and (how many, newest bars) of the others."""

    whole: int
    cut: tuple[tuple[int, int], ...]
    head_bytes: int


@short_cache(1024, most_bytes=2048, size=bytes_of_all)
def _outputs(specs: tuple[bytes, ...]) -> _Outputs:
    found = [_spec(spec) for spec in specs]
    head_bytes = sum([count for count, _ in found]) * _OUTPUT_BYTES + _ITEM_BYTES
    whole = sum([count for count, last in found if not last])
    return _Outputs(whole, tuple([one for one in found if one[1]]), head_bytes)


# A new list of indicators mostly has known indicators.
@short_cache(4096, most_bytes=128, size=len)
def _spec(raw: bytes) -> tuple[int, int]:
    """The outputs of an indicator, and its newest bars; 0 for all bars."""
    spec = inference_pb2.IndicatorSpec.FromString(raw)
    return OUTPUTS.get(spec.name.upper(), 1), spec.last


def analyze(request: requests_pb2.AnalyzeColumns) -> int:
    return predict(request.predict) + sentiments(request.sentiment) + indicators(request.indicators)


def small(_: Message) -> int:
    """For RPCs whose answers are small: a bound for a list of models."""
    return 16 << 10
