"""The forecasters by name, and how each is made.

Heavy packages are imported by the room that needs them, only when its model is asked for.
"""

from importlib import import_module
from typing import cast

from models.forecast.embedded import Embedded
from models.forecast.pretrained import BACKTESTS
from models.forecast.series import Forecast, Series
from models.model import Model

_EMBEDDED = ("auto", "vol_rw", "ridge_ar")
# Each room offers load(name, device, source, backtests) -> Model.
_ROOMS = {
    "fracast": "models.forecast.fracast",
    "auto_fracast": "models.forecast.fracast",
    "chronos": "models.forecast.chronos",
    "chronos_bolt": "models.forecast.chronos",
    "chronos_2": "models.forecast.chronos",
    "timesfm": "models.forecast.timesfm",
}
NAMES = (*_EMBEDDED, *_ROOMS)


class UnknownForecasterError(KeyError):
    """No forecaster has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no forecaster is named {self.name!r}; there are {', '.join(NAMES)}"


def load(
    name: str, *, device: str = "cpu", source: str | None = None, backtests: int = BACKTESTS
) -> Model[Series, Forecast]:
    """The forecaster ``name`` on ``device``; ``source`` is the local folder or hub id of its weights, where it has any.

    ``backtests`` is how many past origins a pretrained network is run at for its coverage, each at a forward pass.

    Raises:
        UnknownForecasterError: no such name.
        ModelUnavailableError: a package, a file or a device is missing; the message says which.
    """
    if name not in NAMES:
        raise UnknownForecasterError(name)
    if name in _EMBEDDED:
        return Embedded(name, device)
    return cast("Model[Series, Forecast]", import_module(_ROOMS[name]).load(name, device, source, backtests))
