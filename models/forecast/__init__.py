"""Probabilistic forecasts of series: median path, quantiles, and the measured coverage on the series itself."""

from models.forecast.catalog import NAMES, UnknownForecasterError, load
from models.forecast.series import Forecast, Series

__all__ = ["NAMES", "Forecast", "Series", "UnknownForecasterError", "load"]
