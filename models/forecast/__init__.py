"""Probabilistic forecasts of one series each: median path, quantiles, and how the bands did on this very series."""

from models.forecast.catalog import NAMES, UnknownForecasterError, load
from models.forecast.series import Forecast, Series

__all__ = ["NAMES", "Forecast", "Series", "UnknownForecasterError", "load"]
