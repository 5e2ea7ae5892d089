"""Calibrated forecasts, financial sentiment and technical indicators from a market-inference gateway.

    import market_inference

    with market_inference.Client("127.0.0.1:8470") as client:
        forecast = client.predict(closes, horizon=10)
        lower, upper = forecast.interval(0.8)

What is named in `__all__` is the public interface; the modules behind it load when one of these names is first used,
so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from market_inference import errors
    from market_inference.cli.pair import Pair
    from market_inference.client.aio import AsyncClient
    from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
    from market_inference.client.bulk import ForecastAnswers, IndicatorAnswers
    from market_inference.client.client import Client
    from market_inference.client.connection import TLS
    from market_inference.client.files import Bars, FileError, read_bars
    from market_inference.client.forecast import Coverage, Forecast
    from market_inference.client.retries import Retries
    from market_inference.client.session import ForecastEvery, Update
    from market_inference.client.status import Device, EngineStatus, ModelInfo, ReplicaStatus, ServiceStatus
    from market_inference.client.warning import AnswerWarning
    from market_inference.errors import MarketInferenceError

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "client.answers",
    "AnswerWarning": "client.warning",
    "Answers": "client.answers",
    "AsyncClient": "client.aio",
    "Bars": "client.files",
    "Client": "client.client",
    "Coverage": "client.forecast",
    "Device": "client.status",
    "EngineStatus": "client.status",
    "FileError": "client.files",
    "Forecast": "client.forecast",
    "ForecastAnswers": "client.bulk",
    "ForecastEvery": "client.session",
    "IndicatorAnswers": "client.bulk",
    "Indicators": "client.answers",
    "MarketInferenceError": "errors",
    "ModelInfo": "client.status",
    "Pair": "cli.pair",
    "ReplicaStatus": "client.status",
    "Retries": "client.retries",
    "Sentiment": "client.answers",
    "ServiceStatus": "client.status",
    "TLS": "client.connection",
    "Update": "client.session",
    "read_bars": "client.files",
}

__all__ = [
    "TLS",
    "Analysis",
    "AnswerWarning",
    "Answers",
    "AsyncClient",
    "Bars",
    "Client",
    "Coverage",
    "Device",
    "EngineStatus",
    "FileError",
    "Forecast",
    "ForecastAnswers",
    "ForecastEvery",
    "IndicatorAnswers",
    "Indicators",
    "MarketInferenceError",
    "ModelInfo",
    "Pair",
    "ReplicaStatus",
    "Retries",
    "Sentiment",
    "ServiceStatus",
    "Update",
    "errors",
    "read_bars",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("market_inference.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
