"""`auto` with calibrated intervals: per symbol, one scale for the distance of the quantiles from the median.

Owns the table of scales and the scaling. The recipe `calibration` writes the table (training/recipes/calibration.py);
the forecasts are those of `auto` (embedded.py).
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from models.forecast.backtests import BACKTESTS, past, with_coverage
from models.forecast.embedded import Embedded
from models.forecast.path import LARGEST
from models.forecast.selftest import SelfTestError, seasonal
from models.forecast.series import Array, Forecast, Series
from models.manifest import Manifest
from models.model import Model, ModelUnavailableError

TABLE = "calibration.json"
SHARED = "*"
"""The entry for symbols without a scale of their own."""


class Table(TypedDict):
    """The members of calibration.json that a forecast needs."""

    scales: dict[str, Annotated[float, Field(gt=0, le=100)]]


def of_folder(manifest: Manifest, folder: Path, device: str) -> Model[Series, Forecast]:
    """The model of a folder with calibration.json. Raises ModelUnavailableError."""
    content = manifest.read(folder, TABLE)
    try:
        table = TypeAdapter(Table).validate_json(content, strict=True)
    except (ValidationError, ValueError) as error:
        raise ModelUnavailableError(f"{TABLE} of {manifest.name!r} holds no table of scales") from error
    return Calibrated(manifest.name, manifest.version, table["scales"], device)


class Calibrated:
    """`models.model.Model[Series, Forecast]`: the forecasts of `auto`, with scaled intervals."""

    fresh_answers = True

    def __init__(self, name: str, version: str, scales: Mapping[str, float], device: str = "cpu") -> None:
        self.name = name
        self.version = version
        self._scales = scales
        self._auto = Embedded("auto", device)

    def bucket(self, item: Series) -> Hashable:
        return self._auto.bucket(item)

    def units(self, item: Series) -> int:
        return self._auto.units(item) * (1 + len(past(item, BACKTESTS)))

    def check(self) -> None:
        """The self-test of `auto`, and one scaled answer. Raises SelfTestError."""
        self._auto.check()
        (answer,) = self.run([seasonal()])
        if not np.isfinite(answer.quantiles).all() or (np.diff(answer.quantiles) < 0).any():
            raise SelfTestError(f"{self.name}: the scaled quantiles are not ordered")

    def run(self, items: Sequence[Series]) -> list[Forecast]:
        """Forecasts in the order of the items. The coverage is measured on the scaled intervals, at past origins."""
        return with_coverage(items, self._scaled(items), self._scaled, BACKTESTS)

    def _scaled(self, items: Sequence[Series]) -> list[Forecast]:
        answers = zip(items, self._auto.run(items), strict=True)
        return [answer._replace(quantiles=scaled(answer, self._scale(item.symbol))) for item, answer in answers]

    def _scale(self, symbol: str) -> float:
        return self._scales.get(symbol, self._scales.get(SHARED, 1.0))


def scaled(answer: Forecast, scale: float) -> Array:
    """Quantiles [horizon, levels] with their distance from the median multiplied by `scale`.

    The distance is a log ratio where median and quantiles are positive, as the scale was fitted on log ratios.
    """
    middle = answer.point[:, None]
    with np.errstate(over="ignore"):
        if (answer.quantiles > 0).all() and (middle > 0).all():
            found = middle * (answer.quantiles / middle) ** scale
        else:
            found = middle + scale * (answer.quantiles - middle)
    return np.ascontiguousarray(np.clip(found, -LARGEST, LARGEST))
