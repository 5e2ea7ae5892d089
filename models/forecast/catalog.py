"""The forecasters by name, and their construction.

Heavy packages are imported by the module of a model, on the first load of the model.
"""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from models.forecast import calibrated
from models.forecast.backtests import BACKTESTS
from models.forecast.embedded import Embedded
from models.forecast.series import Forecast, Series
from models.manifest import Manifest
from models.model import Model, ModelUnavailableError, require


class _Pretrained(NamedTuple):
    """`module` offers load(name, device, source, backtests) -> Model; it needs torch, and `package` beside.

    `takes`: as in TAKES.
    """

    module: str
    package: str
    takes: tuple[str, ...]


_EMBEDDED: dict[str, tuple[str, ...]] = {"auto": ("period", "times"), "auto_v1": (), "vol_rw": (), "ridge_ar": ()}
_PRETRAINED = {
    "fracast": _Pretrained("models.forecast.fracast", "fracast", ()),
    "auto_fracast": _Pretrained("models.forecast.fracast", "fracast", ()),
    "chronos": _Pretrained("models.forecast.chronos", "chronos", ()),
    "chronos_bolt": _Pretrained("models.forecast.chronos", "chronos", ()),
    "chronos_2": _Pretrained("models.forecast.chronos", "chronos", ("covariates", "groups")),
    "timesfm": _Pretrained("models.forecast.timesfm", "transformers", ()),
}
NAMES = (*_EMBEDDED, *_PRETRAINED)
TAKES = {**_EMBEDDED, **{name: row.takes for name, row in _PRETRAINED.items()}}
"""Optional fields of a request that a forecaster takes, by its name; a loaded model has them in `takes`."""
CALIBRATED = "auto_calibrated"
ARCHITECTURES = (*NAMES, CALIBRATED)
"""The architectures of manifests."""


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
    require_packages(name)
    if name in _EMBEDDED:
        return Embedded(name, device)
    return cast(
        "Model[Series, Forecast]", import_module(_PRETRAINED[name].module).load(name, device, source, backtests)
    )


def require_packages(name: str) -> None:
    """Raise ModelUnavailableError, with the command that installs it, when a package of the forecaster is missing."""
    if name in _PRETRAINED:
        require(f"the forecaster {name}", "pretrained", "torch", _PRETRAINED[name].package)


class _Renamed(Protocol):
    name: str
    version: str


def of_folder(manifest: Manifest, folder: Path, *, device: str = "cpu") -> Model[Series, Forecast]:
    """The forecaster of a model folder, under the manifest's name and version; every file is checked before use.

    Raises ModelUnavailableError for an unknown architecture, and for a missing or altered file.
    """
    if manifest.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelUnavailableError(
            f"the architecture {manifest.architecture!r} of {manifest.name!r} is none of {known}"
        )
    if manifest.architecture == CALIBRATED:
        return calibrated.of_folder(manifest, folder, device)
    with manifest.linked(folder) as links:
        model = load(manifest.architecture, device=device, source=str(links) if manifest.files else None)
    named = cast("_Renamed", model)
    named.name, named.version = manifest.name, manifest.version
    return model
