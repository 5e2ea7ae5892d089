"""Probabilistic forecasts of series: median path, quantiles, and the measured coverage on the series itself."""

from models.forecast.catalog import NAMES, TAKES, UnknownForecasterError, load, of_folder, require_packages
from models.forecast.series import Covariates, Forecast, Group, Series

__all__ = [
    "NAMES",
    "TAKES",
    "Covariates",
    "Forecast",
    "Group",
    "Series",
    "UnknownForecasterError",
    "load",
    "of_folder",
    "require_packages",
]
