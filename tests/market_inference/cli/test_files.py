"""Files of bars on the command line: notes, options, and `inspect`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from market_inference.cli.main import main

Run = Callable[..., Result]


@pytest.fixture
def run(service: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line with the test's service as target."""
    monkeypatch.setenv("MARKET_INFERENCE_TARGET", service.target)
    monkeypatch.setenv("MARKET_INFERENCE_API_KEY", "k")
    return lambda *arguments, stdin=None: CliRunner().invoke(main, arguments, input=stdin)


def sent(service: Any) -> list[float]:
    """The values of the last predict request."""
    return list(service.calls[-1][1].series[0].values)


def test_newest_first_is_reversed_and_said(run: Run, service: Any, tmp_path: Path) -> None:
    path = tmp_path / "ACME.csv"
    path.write_text("Date,Close\n2024-01-04,3\n2024-01-03,2\n2024-01-02,1\n")
    done = run("predict", "--csv", str(path))
    assert done.exit_code == 0
    assert sent(service) == [1, 2, 3]
    assert done.stderr == f"Note: {path}: dates descend; bars are reversed, oldest first\n"


def test_indicators_read_the_same_formats(run: Run, service: Any, tmp_path: Path) -> None:
    path = tmp_path / "DAX.csv"
    path.write_text(
        "Datum;Hoch;Tief;Schlusskurs\n02.01.2024;1.235,5;1.230,1;1.234,5\n03.01.2024;1.240,0;1.2,0;1.236,0\n"
    )
    assert "row 3" in run("indicators", "RSI", "--csv", str(path)).stderr
    text = "Datum;Hoch;Tief;Schlusskurs\n02.01.2024;1.235,5;1.230,1;1.234,5\n03.01.2024;1.240,0;1.231,2;{}\n"
    path.write_text(text.format("1.2,0"))
    assert "row 3: column 'Schlusskurs': '1.2,0' is not a number" in run("indicators", "RSI", "--csv", str(path)).stderr
    path.write_text(text.format("1.236"))
    assert run("indicators", "ATR", "--csv", str(path)).exit_code == 0
    panel = service.calls[-1][1].panels[0]
    assert (panel.symbol, list(panel.close), list(panel.high)) == ("DAX", [1234.5, 1236.0], [1235.5, 1240.0])


def test_a_question_of_the_file_is_settled_by_the_option(run: Run, service: Any, tmp_path: Path) -> None:
    path = tmp_path / "ACME.csv"
    path.write_text("Date;Bid\n01/02/2024;1,234\n02/02/2024;1,235\n")
    bid = ("--columns", "close=Bid")
    assert "give --date-format DMY or MDY" in run("predict", "--csv", str(path)).stderr
    done = run("predict", "--csv", str(path), "--date-format", "DMY", *bid)
    assert done.exit_code == 2
    assert "give --decimal . or --decimal ," in done.stderr
    options = (*bid, "--decimal", ",", "--date-format", "DMY", "--delimiter", "semicolon")
    assert run("predict", "--csv", str(path), *options).exit_code == 0
    assert sent(service) == [1.234, 1.235]


def test_several_columns_in_one_option(run: Run, service: Any) -> None:
    text = "when,what, a b\n2024-01-02,x,1\n2024-01-03,x,2\n"
    assert run("predict", "--csv", "-", "--columns", "time=when,close=a b", stdin=text).exit_code == 0
    assert sent(service) == [1, 2]
    assert "expected ROLE=COLUMN" in run("predict", "--csv", "-", "--columns", "close", stdin=text).stderr


def test_standard_input_may_begin_with_a_byte_order_mark(run: Run, service: Any) -> None:
    assert run("predict", "--csv", "-", stdin=b"\xef\xbb\xbfclose\n1\n2\n").exit_code == 0
    assert sent(service) == [1, 2]


def test_all_instruments_of_a_file_are_answered(run: Run, service: Any) -> None:
    text = "ds,unique_id,y\n2024-01-02,A,1\n2024-01-03,A,2\n2024-01-02,B,5\n2024-01-03,B,6\n"
    done = run("predict", "--csv", "-", stdin=text)
    assert done.exit_code == 0
    assert {series.symbol for series in service.calls[-1][1].series} == {"A", "B"}
    assert "give --symbol" in run("watch", "--csv", "-", stdin=text).stderr


def test_inspect_shows_how_a_file_is_understood(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ACME.csv"
    days = [day for day in range(1, 32) if day not in (6, 7, 13, 14, 20, 21, 27, 28)]
    prices = [100.0 + day / 10 if day < 22 else (100.0 + day / 10) / 4 for day in days]
    prices[3] = 10_040.0
    rows = [f"{day:02d}.01.2024;{f'{price:.2f}'.replace('.', ',')};7" for day, price in zip(days, prices, strict=True)]
    path.write_text("Datum;Kurs;Stücke\n" + "\n".join(rows[::-1]), encoding="cp1252")
    done = run("inspect", str(path), "--columns", "close=Kurs")
    assert done.exit_code == 0
    shown = done.stdout
    assert "encoding:    cp1252" in shown
    assert "delimiter:   semicolon" in shown
    assert "decimal:     ," in shown
    assert "columns:     close from 'Kurs'" in shown
    assert "not used:    Stücke" in shown
    assert "time:        Datum (DMY; no time zone)" in shown
    assert "order:       newest first, reversed" in shown
    assert "span:        2024-01-01 to 2024-01-31, usually 1 day apart" in shown
    assert "jump:        2024-01-04: 100.1 times the close before, then back: a bad print?" in shown
    assert "a split 4 for 1 without adjustment?" in shown


def test_inspect_of_an_unreadable_file_shows_the_facts_and_the_reason(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("Date\tClose\n2024-01-02\t1\n2024-01-02\t2\n")
    done = run("inspect", str(path))
    assert done.exit_code == 1
    assert "delimiter:   tab" in done.stdout
    assert done.stderr == (
        f"Error: {path}: row 3: 2024-01-02 is the time of row 2, too; two files joined, several instruments, or local "
        "time at the end of daylight saving time?\n"
    )


def test_inspect_shows_gaps_but_no_weekends(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "gap.csv"
    days = [day for day in range(1, 32) if day % 7 not in (6, 0) and day not in (16, 17, 18, 19)]
    rows = [f"2024-01-{day:02d},{100 + day}" for day in days]
    rows += [f"2024-02-{day:02d},{100 + day}" for day in (5, 6, 7, 8, 9, 12, 13)]
    path.write_text("Date,Close\n" + "\n".join(rows))
    gaps = [line for line in run("inspect", str(path)).stdout.splitlines() if line.startswith("gap:")]
    assert gaps == [
        "gap:         2024-01-15 to 2024-01-22: 7 days",
        "gap:         2024-01-31 to 2024-02-05: 5 days",
    ]
