"""The size of an answer, known from the request alone, before anything is computed.

Owns one function per RPC with large answers, which methods.py names in the RPC's row: the bytes of the answer's numbers
and a bound for its names. The limit, `max_answer_bytes`, stands in the .proto file.
"""

from functools import lru_cache
from typing import Final

from google.protobuf.message import Message

from market_inference.contract.encoding.wireformat import NUMBER_BYTES
from market_inference.contract.generated import inference_pb2, requests_pb2

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


def predict(request: requests_pb2.PredictColumns) -> int:
    levels = len(request.quantiles) or DEFAULT_LEVELS
    return len(request.series) * (request.horizon * (levels + 1) * NUMBER_BYTES + _ITEM_BYTES)


def indicators(request: requests_pb2.ComputeIndicatorsColumns) -> int:
    specs = [_spec(spec) for spec in request.indicators]
    outputs = sum(count for count, _ in specs)
    values = 0
    for panel in request.panels:
        bars = len(panel.close) // NUMBER_BYTES
        values += sum(count * (min(bars, last) if last else bars) for count, last in specs)
    return values * NUMBER_BYTES + len(request.panels) * (outputs * _OUTPUT_BYTES + _ITEM_BYTES)


@lru_cache(maxsize=1024)
def _spec_of(spec: bytes) -> tuple[int, int]:
    asked = inference_pb2.IndicatorSpec.FromString(spec)
    return OUTPUTS.get(asked.name.upper(), 1), asked.last


def _spec(spec: bytes) -> tuple[int, int]:
    """The outputs of an indicator, and the newest values that the request wants, 0 for all."""
    # Only short specs are kept: the cache stays small.
    return _spec_of(spec) if len(spec) <= 256 else _spec_of.__wrapped__(spec)


def analyze(request: requests_pb2.AnalyzeColumns) -> int:
    return predict(request.predict) + indicators(request.indicators)


def small(_: Message) -> int:
    """For RPCs whose answers are bounded by the limits of the request: a bound for 100 texts, or a list of models."""
    return 16 << 10
