"""The page at `/` in a real headless Chromium: samples, dropped files, a bad file, a replay, dark, a phone."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.edge.test_tables import SPLIT, VENDORS, table

NODE = Path(__file__).parents[1] / "clients" / "node"
BROWSER = Path(__file__).with_name("browser.mjs")


@pytest.fixture(scope="module")
def seen(edge, tmp_path_factory) -> dict:
    """The content of the page."""
    if not (NODE / "node_modules" / "playwright-core").is_dir():
        pytest.skip("npm install was not run")
    folder = Path(os.environ.get("PAGE_SCREENSHOTS", tmp_path_factory.mktemp("pictures")))
    files = []
    inputs = tmp_path_factory.mktemp("files")
    for at, vendor in enumerate(VENDORS):
        files.append(inputs / f"vendor{at}.csv")
        files[-1].write_bytes(table(vendor, newest_first=at == 1))
    files.append(inputs / "bad.csv")
    files[-1].write_text("Date,Close\n2024-01-01,5\n2024-01-02,five\n", encoding="utf-8")
    files.append(inputs / "split.csv")
    # The page holds the newest bars out of the forecast, so the split lies before them.
    files[-1].write_text("Close\n" + "".join(f"{close}\n" for close in [*SPLIT, *SPLIT[110:] * 4]), encoding="utf-8")
    ran = subprocess.run(
        [shutil.which("node"), str(BROWSER), f"{edge.url}/", str(folder), *map(str, files)],
        capture_output=True,
        text=True,
        env={**os.environ, "NODE_FOLDER": str(NODE)},
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout) | {"folder": str(folder)}


def test_no_console_error_and_nothing_from_elsewhere(seen, edge):
    assert seen["faults"] == []
    assert all("400" in text for text in seen["expected"])
    assert {url for url in seen["requests"] if not url.startswith((edge.url, "blob:", "data:"))} == set()
    assert seen["kept"] == 0


def test_the_sample_shows_candles_a_fan_and_what_came(seen):
    sample = seen["sample"]
    assert (sample["bands"], sample["candles"], sample["came"]) == (3, 2, 1)
    assert any("backtests inside this series" in fact for fact in sample["facts"])
    assert any("inside the 90 % band" in fact for fact in sample["facts"])
    assert sample["panes"] == ["RSI", "MACD"]
    assert seen["health"] == "healthy, 1 replica"
    assert "forecast" in seen["status"]


def test_headlines_have_scores(seen):
    assert seen["moods"][0] > 0 > seen["moods"][2]


def test_warnings_are_shown_beside_the_forecast_the_replay_and_the_headlines(seen):
    assert "split" in seen["split"]
    assert "split" in seen["replayed"]
    assert seen["doubt"]


def test_the_keyboard_moves_along_the_bars(seen):
    assert "median" in seen["readout"]
    assert "came" in seen["readout"]


@pytest.mark.parametrize("at", range(len(VENDORS)), ids=list(VENDORS))
def test_a_vendors_file_becomes_a_fan(seen, at):
    shown = seen["files"][f"vendor{at}.csv"]
    assert shown["bands"] == 3
    assert shown["subtitle"].startswith("80 bars, 2024-01-01")
    assert shown["fault"] == ""


def test_a_bad_file_says_row_and_reason_and_keeps_the_page(seen):
    shown = seen["files"]["bad.csv"]
    assert "five" in shown["fault"]
    assert shown["bands"] == 3


def test_nothing_of_the_last_series_stays_while_the_next_forecast_is_made(seen):
    between = seen["between"]
    assert (between["title"], between["bands"], between["facts"], between["notes"]) == ("season", 0, [], [])
    assert (between["panes"], between["came"]) == ([], 0)


def test_structure_is_found_where_there_is_structure(seen):
    assert any("structure" in fact for fact in seen["season"]["facts"])


def test_a_replay_runs_through_a_session(seen):
    assert seen["liveFault"] == ""
    assert "40 of 40" in seen["live"]
    assert "inside the 80 % band" in seen["live"]


def test_code_to_copy_names_the_shown_call(seen, edge):
    assert f"{edge.url}/v1/predict?horizon=20" in seen["curl"]
    assert "client.predict" in seen["python"]


def test_dark_and_phone(seen):
    assert seen["dark"] != seen["sample"]["background"]
    assert not seen["phone"]["wide"]
    assert seen["phone"]["bands"] == 3
    for name in ("page.png", "page-dark.png", "page-phone.png", "replay.png"):
        assert (Path(seen["folder"]) / name).stat().st_size > 10_000


def test_the_reference_lists_every_route(seen, edge):
    assert set(seen["operations"]) == set(edge.get("/openapi.json").json["paths"])
    # Fields of several forms, too.
    assert {"time_series", "series[].values", "indicators[].name", "predict.series[].symbol"} <= set(seen["fields"])
