"""Units of a request: the measure of rates and quotas, read from the request alone, before any computation.

Owns one function per RPC, named in the RPC's row of methods.py: points of series and covariates, tokens of texts,
bars times indicators, and more for costly indicators. gateway/access/budget.py owns the clients' limits.
"""

from collections.abc import Iterable
from typing import Final

from market_inference.contract.encoding.wireformat import NUMBER_BYTES
from market_inference.contract.generated import inference_pb2, requests_pb2
from market_inference.contract.short_cache import bytes_of_all, short_cache

# English text has about four characters per token; the tokenizer itself belongs to the inference service.
CHARACTERS_PER_TOKEN = 4
STATUS_UNITS = 100
COSTLY: Final = {"HT_DCPHASE": 70, "HT_SINE": 70, "HT_TRENDMODE": 70}
"""Units per bar of costly indicators: the number of common indicators that take as long."""
WINDOWS: Final = {
    "AROON": ("timeperiod",),
    "AROONOSC": ("timeperiod",),
    "AVGDEV": ("timeperiod",),
    "CCI": ("timeperiod",),
    "DONCHIAN": ("timeperiod",),
    "FRACTAL": ("leftbars", "rightbars"),
    "IMI": ("timeperiod",),
    "KDJ": ("fastk_period",),
    "MAXINDEX": ("timeperiod",),
    "MININDEX": ("timeperiod",),
    "MINMAXINDEX": ("timeperiod",),
    "PERCENTILE": ("timeperiod",),
    "PERCENTRANK": ("timeperiod",),
    "SMI": ("timeperiod",),
    "STOCH": ("fastk_period",),
    "STOCHF": ("fastk_period",),
    "STOCHRSI": ("fastk_period",),
    "VHF": ("timeperiod",),
}
"""Indicators with work for every bar of the window at every bar; the window is the sum of the parameters.
models/indicators/price.py measures the costs; a test compares the two."""
BARS_PER_UNIT: Final = 8
"""One unit pays for this many bars of a window."""
PRICE_PER_UNIT: Final = 100
"""One unit pays for this much of the newest values of a live session, a microsecond of one CPU core."""
_LONGEST_WINDOW: Final = 100_000


def predict(request: requests_pb2.PredictColumns) -> int:
    horizon = request.horizon
    units = sum([len(series.values) // NUMBER_BYTES + horizon for series in request.series])
    if request.covariates:
        units += sum(len(one.past_covariates) + len(one.future_covariates) for one in request.series) // NUMBER_BYTES
    return units


def sentiment(request: inference_pb2.AnalyzeSentimentRequest) -> int:
    return sum(_size(text) // CHARACTERS_PER_TOKEN + 1 for text in request.texts)


def _size(text: str) -> int:
    """The characters of an ASCII text, else the bytes: a Chinese character is about a token."""
    return len(text) if text.isascii() else len(text.encode())


def indicators(request: requests_pb2.ComputeIndicatorsColumns) -> int:
    """Bars times indicators; for indicators of WINDOWS, an eighth of bars times window more.

    A window counts at the bars after the first window.
    """
    per_bar, windows = _cost(tuple(request.indicators))
    total = 0
    for panel in request.panels:
        bars = len(panel.close) // NUMBER_BYTES
        total += bars * per_bar
        for window in windows:
            total += max(0, bars - window) * window // BARS_PER_UNIT
    return total


@short_cache(1024, most_bytes=2048, size=bytes_of_all)
def _cost(specs: tuple[bytes, ...]) -> tuple[int, tuple[int, ...]]:
    """Units per bar of the indicators together, and the windows. The default windows are short and cost nothing."""
    costs = [_spec_cost(spec) for spec in specs]
    return sum([per_bar for per_bar, _ in costs]), tuple([window for _, window in costs if window])


# A new list of indicators mostly has known indicators.
@short_cache(4096, most_bytes=128, size=len)
def _spec_cost(raw: bytes) -> tuple[int, int]:
    """Units per bar of an indicator, and its window; 0 for none."""
    spec = inference_pb2.IndicatorSpec.FromString(raw)
    name = spec.name.upper()
    given = [spec.params[parameter] for parameter in WINDOWS.get(name, ()) if parameter in spec.params]
    # Numbers are checked later: an infinity and a NaN fail the comparison.
    return COSTLY.get(name, 1), int(sum(given)) if given and 0 < sum(given) <= _LONGEST_WINDOW else 0


def _serialised(specs: Iterable[inference_pb2.IndicatorSpec]) -> tuple[bytes, ...]:
    return tuple([spec.SerializeToString() for spec in specs])


def analyze(request: requests_pb2.AnalyzeColumns) -> int:
    return predict(request.predict) + sentiment(request.sentiment) + indicators(request.indicators)


def watch(request: inference_pb2.WatchRequest) -> int:
    """Units of a session's opening; for its bars see BarUnits."""
    per_bar, _ = _cost(_serialised(request.open.indicators))
    return len(request.open.history.close) * max(1, per_bar)


def of_newest(indicators: int, price: int) -> int:
    """Units of each bar of a live session without a forecast; `price`: that of models/indicators/price.py."""
    return max(1, indicators + price // PRICE_PER_UNIT)


class BarUnits:
    """Units of the bars of a live session. A forecast costs as much as Predict over the bars that the session holds."""

    def __init__(self, request: inference_pb2.WatchOpen) -> None:
        self._per_bar = 1
        self._most_held = 0
        # The sequence number before the first bar of the history.
        self._before = request.sequence - len(request.history.close)
        self._horizon = request.forecast.horizon
        self._every = (request.forecast.every or 1) if request.HasField("forecast") else 0

    def opened(self, opened: inference_pb2.WatchOpened) -> None:
        """Note the answer to the opening; no bar is charged before."""
        self._per_bar = max(1, opened.units_per_bar)
        self._most_held = opened.bars

    def of(self, sequence: int) -> int:
        """Units of the bar with this sequence number, refused bars and corrections included."""
        if not self._every or sequence % self._every:
            return self._per_bar
        return self._per_bar + max(0, min(self._most_held, sequence - self._before)) + self._horizon


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
