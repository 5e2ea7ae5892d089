"""The catalogue: names, errors, and a light import."""

import subprocess
import sys

import pytest

from models.forecast import NAMES, TAKES, UnknownForecasterError, load


def test_names_cover_the_embedded_models_and_the_adapters() -> None:
    embedded = {"auto", "auto_v1", "vol_rw", "ridge_ar", "fracast", "auto_fracast"}
    assert set(NAMES) == embedded | {"chronos", "chronos_bolt", "chronos_2", "timesfm"}
    assert set(TAKES) == set(NAMES)


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownForecasterError, match="no forecaster is named 'prophet'; there are auto, "):
        load("prophet")


def test_importing_and_loading_auto_leaves_heavy_packages_alone() -> None:
    program = (
        "import sys, models.forecast as f; f.load('auto');"
        "sys.exit(bool({'transformers', 'chronos', 'fracast', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=250).returncode == 0
