"""The forecasters by name, and their construction.

Heavy packages are imported by the module of a model, on the first load of the model.
"""

from importlib import import_module
from typing import cast

from models.forecast.embedded import Embedded
from models.forecast.pretrained import BACKTESTS
from models.forecast.series import Forecast, Series
from models.model import Model

_EMBEDDED = ("auto", "vol_rw", "ridge_ar")
# Every module here offers load(name, device, source, backtests) -> Model.
_MODULES = {
    "fracast": "models.forecast.fracast",
    "auto_fracast": "models.forecast.fracast",
    "chronos": "models.forecast.chronos",
    "chronos_bolt": "models.forecast.chronos",
    "chronos_2": "models.forecast.chronos",
    "timesfm": "models.forecast.timesfm",
}
NAMES = (*_EMBEDDED, *_MODULES)


class UnknownForecasterError(KeyError):
    """The name of no forecaster."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no forecaster is named {self.name!r}; there are {', '.join(NAMES)}"


def load(
    name: str, *, device: str = "cpu", source: str | None = None, backtests: int = BACKTESTS
) -> Model[Series, Forecast]:
    """The forecaster ``name`` on ``device``; ``source`` is the local folder or hub id of pretrained weights.

    ``backtests`` is the number of past origins for the coverage of pretrained networks; an origin costs a forward pass.

    Raises:
        UnknownForecasterError: no such name.
        ModelUnavailableError: a package, a file or a device is missing; the message names the missing part.
    """
    if name not in NAMES:
        raise UnknownForecasterError(name)
    if name in _EMBEDDED:
        return Embedded(name, device)
    return cast("Model[Series, Forecast]", import_module(_MODULES[name]).load(name, device, source, backtests))
