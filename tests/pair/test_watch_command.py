"""`market-inference watch` with a real service."""

import pytest
import talib
from click.testing import CliRunner

from market_inference.cli.main import main


@pytest.fixture
def minutes(tmp_path, market):
    """A CSV file of 130 bars with times."""
    file = tmp_path / "ACME.csv"
    rows = [",".join(["time", *market])]
    for at, values in enumerate(zip(*market.values(), strict=True)):
        rows.append(",".join([str(1_700_000_000 + 60 * at), *(repr(float(value)) for value in values)]))
    file.write_text("\n".join(rows[:131]) + "\n")
    return file


def watch(running, *arguments):
    environment = {"MARKET_INFERENCE_API_KEY": running.key}
    return CliRunner().invoke(main, ["watch", "--target", running.target, *arguments], env=environment)


def test_the_last_table_shows_the_values_of_the_full_call(running, minutes, market):
    options = ["--speed", "max", "--indicator", "RSI", "--horizon", "3", "--every", "5"]
    done = watch(running, "--csv", str(minutes), *options)
    assert done.exit_code == 0, done.output
    assert f"{talib.RSI(market['close'][:130])[-1]:.4f}" in done.output
    assert "ACME" in done.output
    assert "bar 130 of 130" in done.output
    assert "in 3 bars" in done.output


def test_speed_replays_bars_by_their_times(running, minutes):
    done = watch(running, "--csv", str(minutes), "--speed", "18000x", "--history", "100", "--indicator", "SMA")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed", "fast"], "is no speed"),
        (["--history", "130"], "between 1 and 129"),
        (["--indicator", "RSY"], "unknown function"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(running, minutes, arguments, words):
    done = watch(running, "--csv", str(minutes), *arguments)
    assert done.exit_code != 0
    assert words in done.output
    assert "Traceback" not in done.output
