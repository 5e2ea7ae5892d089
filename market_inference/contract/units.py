"""Units of a request: the measure of rates and quotas, known from the request alone, before anything is computed.

Owns one function per RPC, which methods.py names in the RPC's row: points of series, tokens of texts, bars times
indicators. What a client may spend is gateway/access/budget.py's.
"""

from market_inference.contract.encoding.wireformat import NUMBER_BYTES
from market_inference.contract.generated import inference_pb2, requests_pb2

# English text has about four characters per token; the tokenizer itself belongs to the inference service.
CHARACTERS_PER_TOKEN = 4
STATUS_UNITS = 100


def predict(request: requests_pb2.PredictColumns) -> int:
    return sum(len(series.values) // NUMBER_BYTES + request.horizon for series in request.series)


def sentiment(request: inference_pb2.AnalyzeSentimentRequest) -> int:
    return sum(len(text) // CHARACTERS_PER_TOKEN + 1 for text in request.texts)


def indicators(request: requests_pb2.ComputeIndicatorsColumns) -> int:
    return sum(len(panel.close) // NUMBER_BYTES for panel in request.panels) * len(request.indicators)


def analyze(request: requests_pb2.AnalyzeColumns) -> int:
    return predict(request.predict) + sentiment(request.sentiment) + indicators(request.indicators)


def watch(request: inference_pb2.WatchRequest) -> int:
    """The opening of a session; each bar costs of_bar()."""
    return len(request.open.history.close) * max(1, len(request.open.indicators))


def of_bar(opened: inference_pb2.WatchOpen) -> int:
    """Units of each bar of a live session; a forecast at every n-th bar counts with its mean."""
    forecast = opened.forecast.horizon // max(1, opened.forecast.every)
    return max(1, len(opened.indicators)) + forecast


def stream(_: requests_pb2.StreamColumns) -> int:
    """A Stream call has no units of its own: each request of the stream costs what its own RPC costs."""
    return 0


def status(_: inference_pb2.GetStatusRequest) -> int:
    """GetStatus runs every engine of every replica."""
    return STATUS_UNITS


def models(_: inference_pb2.ListModelsRequest) -> int:
    return 1


def of_mistake(size_bytes: int, violations: int) -> int:
    """Units of a refused request. A violation takes as long to explain as a point takes to forecast."""
    return of_bytes(size_bytes) + violations


def of_bytes(size: int) -> int:
    """Units of a message that cannot be read or that breaks a rule: `size` bytes, as if the bytes were points."""
    return max(1, size // NUMBER_BYTES)
