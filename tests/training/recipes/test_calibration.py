"""The calibration recipe: scales that a known error of the intervals asks for, judged on origins that chose nothing."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from models import forecast
from models.manifest import Manifest
from training.recipes import calibration, evaluation
from training.recipes.calibration import Origins, fitted, judged, pinball
from training.recipes.origins import held_back
from training.recipes.recipe import of
from training.recipes.run import DataRefusedError, Surroundings

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([-1.6449, -0.6745, 0.0, 0.6745, 1.6449])


def origins(count: int, spread: float, seed: int) -> Origins:
    """What came has the given spread; the intervals say 1."""
    came = np.random.default_rng(seed).normal(0, spread, count)
    return Origins(np.tile(NORMAL, (count, 1)), np.zeros(count), came, np.arange(count), np.ones(count))


def test_the_quantile_loss_against_a_case_worked_by_hand() -> None:
    loss = pinball(np.array([[0.0, 2.0]]), np.array([1.0]), (0.1, 0.9))
    assert loss[0] == pytest.approx((0.1 * 1 + 0.1 * 1) / 2)


def test_scales_are_those_that_the_errors_ask_for() -> None:
    found = {"narrow": origins(800, 0.6, 1), "wide": origins(800, 1.6, 2), "right": origins(800, 1.0, 3)}
    scales = fitted(found, LEVELS, folds=5)
    assert scales["narrow"] == pytest.approx(0.6, abs=0.12)
    assert scales["wide"] == pytest.approx(1.6, abs=0.25)
    assert scales["right"] == pytest.approx(1.0, abs=0.15)
    measures = judged(found, scales, LEVELS, folds=5)
    assert measures["gain"] > 0.02
    assert measures["coverage"] == pytest.approx(0.9, abs=0.04)


def test_few_origins_move_the_scale_little() -> None:
    found = {**{f"S{n}": origins(200, 1.0, n) for n in range(5)}, "new": origins(5, 2.0, 9)}
    scales = fitted(found, LEVELS, folds=5)
    assert abs(np.log(scales["new"] / scales["*"])) < 0.4


def bars(path: Path, symbols: int = 2, count: int = 200) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["symbol", "time", "open", "high", "low", "close"])
        for number in range(symbols):
            closes = 100 * np.exp(np.cumsum(np.random.default_rng(number).normal(0, 0.01, count)))
            writer.writerows([f"S{number}", f"{n}", c, c, c, c] for n, c in enumerate(closes))
    return path


def around(data: Path, out: Path) -> Surroundings:
    out.mkdir()
    return Surroundings(
        data=data, out=out, resume=None, measure=lambda *_: None, checkpoint=lambda *_: None, stopping=lambda: False
    )


def test_a_whole_run_writes_a_table_and_the_newest_intervals(tmp_path: Path) -> None:
    made = around(bars(tmp_path / "bars.csv"), tmp_path / "out")
    outcome = calibration.train(of({"kind": "calibration"}), made)
    table = json.loads((made.out / calibration.TABLE).read_text())
    assert set(table["scales"]) == {"*", "S0", "S1"}
    manifest = Manifest.of(made.out)
    assert manifest.read(made.out, calibration.TABLE)
    served = forecast.of_folder(manifest, made.out)
    served.check()
    assert (served.name, served.version) == ("auto_calibrated", "1")
    with (made.out / evaluation.NAME).open() as file:
        assert len(list(csv.DictReader(file))) == outcome.measures["origins"]
    held = {symbol: held_back(of({"kind": "calibration"}), 200) for symbol in ("S0", "S1")}
    kept = np.arange(sum(map(len, held.values())))
    with (made.out / evaluation.NAME).open(newline="") as file:
        bands = evaluation.read_bands(file, held, (0.05, 0.1, 0.5, 0.9, 0.95), kept)
    assert (bands > 50).all()


def test_no_forecast_sees_what_comes_after_its_origin(tmp_path: Path) -> None:
    recipe = of({"kind": "calibration"})
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, 200)))
    changed = closes.copy()
    changed[150:] *= 3
    before, after = calibration.walk_forward(closes, recipe), calibration.walk_forward(changed, recipe)
    ends = np.arange(195, 119, -5)[::-1]
    same = ends <= 150
    np.testing.assert_array_equal(before.quantiles[same], after.quantiles[same])


def test_too_few_bars_and_bad_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefusedError, match="no symbol has 125 bars"):
        calibration.train(of({"kind": "calibration"}), around(bars(tmp_path / "a.csv", count=60), tmp_path / "a"))
    (tmp_path / "b.csv").write_text("close\n1\nx\n")
    with pytest.raises(DataRefusedError, match="row 3"):
        calibration.train(of({"kind": "calibration"}), around(tmp_path / "b.csv", tmp_path / "b"))
