"""`auto` with scaled intervals, from a model folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from models import forecast
from models.forecast import Series
from models.forecast.calibrated import scaled
from models.manifest import Manifest, digest
from models.model import ModelUnavailableError

LEVELS = (0.1, 0.5, 0.9)
WALK = 100 * np.exp(np.cumsum(np.random.default_rng(3).standard_normal(200) / 100))


def folder_of(folder: Path, table: object, **changes: object) -> Manifest:
    content = json.dumps(table).encode()
    (folder / "calibration.json").write_bytes(content)
    fields = {"kind": "forecast", "architecture": "auto_calibrated", "name": "desk_auto", "version": "3-abc",
              "licence": "Apache-2.0", "dtype": "float64", "files": {"calibration.json": digest(content)}}  # fmt: skip
    manifest = Manifest(**{**fields, **changes})  # type: ignore[arg-type]
    manifest.write(folder)
    return manifest


def test_each_symbol_has_its_scale_and_others_share_one(tmp_path: Path) -> None:
    manifest = folder_of(tmp_path, {"scales": {"*": 1.0, "WIDE": 2.0}})
    model = forecast.of_folder(manifest, tmp_path)
    model.check()
    assert (model.name, model.version) == ("desk_auto", "3-abc")
    items = [Series(WALK, 5, LEVELS, symbol) for symbol in ("WIDE", "other", "")]
    wide, other, unnamed = model.run(items)
    (plain,) = forecast.load("auto").run([Series(WALK, 5, LEVELS)])
    np.testing.assert_allclose(other.quantiles, plain.quantiles, rtol=1e-12)
    np.testing.assert_allclose(unnamed.quantiles, plain.quantiles, rtol=1e-12)
    np.testing.assert_allclose(
        np.log(wide.quantiles / wide.point[:, None]), 2 * np.log(plain.quantiles / plain.point[:, None]), atol=1e-12
    )
    (alone,) = model.run(items[:1])
    np.testing.assert_allclose(alone.quantiles, wide.quantiles, rtol=1e-12)
    assert wide.coverage >= other.coverage
    assert wide.coverage_count == 4


def test_a_series_around_zero_is_scaled_by_differences() -> None:
    (plain,) = forecast.load("auto").run([Series(WALK - WALK[-1], 5, LEVELS)])
    found = scaled(plain, 0.5)
    np.testing.assert_allclose(found - plain.point[:, None], 0.5 * (plain.quantiles - plain.point[:, None]), atol=1e-12)


@pytest.mark.parametrize("table", [{}, [], {"scales": {"*": 0}}, {"scales": {"*": "1"}}, {"scales": [1]}])
def test_a_malformed_table_is_refused(tmp_path: Path, table: object) -> None:
    with pytest.raises(ModelUnavailableError, match="no table of scales"):
        forecast.of_folder(folder_of(tmp_path, table), tmp_path)


def test_an_altered_table_is_refused(tmp_path: Path) -> None:
    manifest = folder_of(tmp_path, {"scales": {"*": 1.0}})
    (tmp_path / "calibration.json").write_text('{"scales": {"*": 9.0}}')
    with pytest.raises(ModelUnavailableError, match="SHA-256"):
        forecast.of_folder(manifest, tmp_path)


def test_an_embedded_forecaster_has_the_manifests_name_and_version(tmp_path: Path) -> None:
    manifest = folder_of(tmp_path, {}, architecture="auto", files={}, name="baseline", version="7")
    model = forecast.of_folder(manifest, tmp_path)
    model.check()
    assert (model.name, model.version) == ("baseline", "7")


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="'prophet' of 'desk_auto' is none of auto, "):
        forecast.of_folder(folder_of(tmp_path, {}, architecture="prophet"), tmp_path)
