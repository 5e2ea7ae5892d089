"""What a request costs in units: points of series, tokens of texts, bars times indicators.

Owns the measure that rates and quotas are counted in. It is known before anything is computed, from the request alone.
"""

from google.protobuf.message import Message

from market_inference.contract.encoding.twins import NUMBER_BYTES
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import requests_pb2 as twins

# English text has about four characters a token; the tokenizer itself is the inference service's.
CHARACTERS_PER_TOKEN = 4
# Every engine of every replica runs for it.
STATUS_UNITS = 100


def units(message: Message) -> int:
    """Units of a request, read through its twin. At least 1: a call costs something even when it asks for nothing."""
    return max(1, _units(message))


def of_bytes(size: int) -> int:
    """What a message costs that cannot be read, or breaks a rule: its bytes as if they were points."""
    return max(1, size // NUMBER_BYTES)


def of_bar(opened: pb.WatchOpen) -> int:
    """Units of each bar of a live session, forecasts at their mean."""
    forecast = opened.forecast.horizon // max(1, opened.forecast.every)
    return max(1, len(opened.indicators)) + forecast


def _units(message: Message) -> int:
    if isinstance(message, twins.PredictColumns):
        return sum(len(series.values) // NUMBER_BYTES + message.horizon for series in message.series)
    if isinstance(message, pb.AnalyzeSentimentRequest):
        return sum(len(text) // CHARACTERS_PER_TOKEN + 1 for text in message.texts)
    if isinstance(message, twins.ComputeIndicatorsColumns):
        return sum(len(panel.close) // NUMBER_BYTES for panel in message.panels) * len(message.indicators)
    if isinstance(message, twins.AnalyzeColumns):
        return _units(message.predict) + _units(message.sentiment) + _units(message.indicators)
    if isinstance(message, pb.WatchOpen):
        return len(message.history.close) * max(1, len(message.indicators))
    return STATUS_UNITS if isinstance(message, pb.GetStatusRequest) else 0
