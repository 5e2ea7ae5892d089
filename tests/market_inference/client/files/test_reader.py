"""Files are read or refused for stated reasons: structure, missing values, order, limits and options."""

import bz2
import gzip
import importlib
import io
import json
import lzma
import os
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from market_inference.client.files import FileError, Options, grid, parquet, read, read_bars, source

DAYS = [f"2024-01-{day:02d}" for day in range(2, 12)]


def file(text, name="bars.csv", encoding="utf-8"):
    opened = io.BytesIO(text.encode(encoding))
    opened.name = name
    return opened


def test_rising_closes_written_newest_first_rise():
    rising = [f"{day},{100 + at}" for at, day in enumerate(DAYS)]
    bars = read_bars(file("Date,Close\n" + "\n".join(rising[::-1])))
    assert bars["close"].tolist() == [100.0 + at for at in range(10)]
    assert bars.times[0] == np.datetime64("2024-01-02")
    assert bars.notes == ("dates descend; bars are reversed, oldest first",)


def test_rows_without_any_price_are_skipped_and_said():
    bars = read_bars(file("Date,Open,Close\n2024-01-02,1,2\n2024-01-03,,\n2024-01-04,null,NaN\n2024-01-05,3,4\n"))
    assert bars["close"].tolist() == [2.0, 4.0]
    assert bars.notes == ("row 3 and 1 more without values skipped",)


def test_a_missing_close_inside_is_refused_by_row():
    with pytest.raises(FileError, match=r"bars.csv: row 3: column 'Close' has no value; fill or delete the row"):
        read_bars(file("Date,Open,Close\n2024-01-02,1,2\n2024-01-03,3,\n2024-01-05,3,4\n"))


def test_an_incomplete_last_bar_is_skipped_and_said():
    bars = read_bars(file("Date,Open,Close\n2024-01-02,1,2\n2024-01-03,3,4\n2024-01-04,5,\n"))
    assert bars["close"].tolist() == [2.0, 4.0]
    assert bars.notes == ("row 4: the last bar has no close and is skipped",)


def test_a_broken_column_that_is_not_the_close_is_left_out_and_said():
    bars = read_bars(file("Date,High,Close\n2024-01-02,x?,2\n2024-01-03,5,4\n"))
    assert list(bars) == ["close"]
    assert bars.notes == ("column 'High' left out: row 2: column 'High': 'x?' is not a number",)


def test_an_ambiguous_volume_alone_costs_the_volume_only():
    bars = read_bars(file('Date,Close,Volume\n2024-01-02,12,"1,234"\n2024-01-03,13,"2,345"\n'))
    assert list(bars) == ["close"]
    assert "'1,234' may be 1.234 or 1234" in bars.notes[0]
    bars = read_bars(file('Date,Close,Volume\n2024-01-02,12.5,"1,234"\n2024-01-03,13,"2,345"\n'))
    assert bars["volume"].tolist() == [1234.0, 2345.0]


def test_an_ungrouped_volume_decides_that_points_are_decimal():
    text = "Date\tClose\tVolume\n2024-01-02\t151.234\t{}\n2024-01-03\t151.300\t{}\n"
    assert read_bars(file(text.format(54321, 61234)))["close"].tolist() == [151.234, 151.3]
    with pytest.raises(FileError, match=r"row 2: '151.234' may be 151.234 or 151234"):
        read_bars(file(text.format(543, 612)))


def test_an_adjusted_close_alone_is_the_close_without_unadjusted_prices():
    text = "Date,Open,High,Low,Adj Close\n2024-01-02,10,11,9,5\n2024-01-03,10,11,9,5.5\n"
    bars = read_bars(file(text))
    assert bars["close"].tolist() == [5.0, 5.5]
    assert list(bars) == ["close"]
    assert bars.notes == (
        "column 'Adj Close' is read as the close",
        "open, high and low are not adjusted like the close, and are left out",
    )


def test_close_beside_an_adjusted_close_is_said_and_the_option_chooses():
    text = "Date,Close,Adj Close\n2024-01-02,10,5\n2024-01-03,11,5.5\n"
    assert read_bars(file(text)).notes == ("closes are not adjusted; for 'Adj Close' give --columns close='Adj Close'",)
    assert read_bars(file(text), columns={"close": "Adj Close"})["close"].tolist() == [5.0, 5.5]
    assert read_bars(file(text)).column("adj close").tolist() == [5.0, 5.5]


def test_two_columns_of_one_name_need_a_choice():
    text = "Date,Close,Close\n2024-01-02,10,5\n2024-01-03,11,5.5\n"
    with pytest.raises(FileError, match=r"Close \(column 2\) or Close \(column 3\)\? choose with --columns close="):
        read_bars(file(text))
    assert read_bars(file(text), columns={"close": 3})["close"].tolist() == [5.0, 5.5]


def test_a_duplicated_time_is_refused_by_row_wherever_it_stands():
    with pytest.raises(FileError, match="row 4: 2024-01-02 is the time of row 2, too"):
        read_bars(file("Date,Close\n2024-01-02,1\n2024-01-03,2\n2024-01-02,3\n"))


def test_unsorted_rows_are_refused_by_row():
    with pytest.raises(FileError, match=r"row 4: 2024-01-01 is before 2024-01-03 in row 3; .*sort"):
        read_bars(file("Date,Close\n2024-01-02,1\n2024-01-03,2\n2024-01-01,3\n2024-01-05,3\n"))


def test_the_newest_bars_are_kept_and_the_number_is_said():
    rows = [f"2024-01-{1 + at // 24:02d} {at % 24:02d}:00,{at}" for at in range(100)]
    text = "time,close\n" + "\n".join(rows)
    bars = read_bars(file(text), limit=10)
    assert bars["close"].tolist() == list(range(90, 100))
    assert bars.notes == ("100 bars; the newest 10 are used",)
    assert len(bars.times) == 10
    assert len(read_bars(file(text), limit=None)["close"]) == 100


def test_more_than_ten_thousand_bars_are_cut_to_the_newest():
    text = "close\n" + "\n".join(map(str, range(10_050)))
    bars = read_bars(file(text))
    assert bars["close"][[0, -1]].tolist() == [50.0, 10_049.0]
    assert "10,050 bars; the newest 10,000 are used" in bars.notes


def test_several_instruments_are_read_together_or_by_symbol():
    rows = [f"{day},{symbol},{at + base}" for symbol, base in (("A", 1), ("B", 100)) for at, day in enumerate(DAYS)]
    found = read(file("ds,unique_id,y\n" + "\n".join(rows)))
    assert {symbol: bars["close"][0] for symbol, bars in found.items()} == {"A": 1.0, "B": 100.0}
    assert read_bars(file("ds,unique_id,y\n" + "\n".join(rows)), symbol="b")["close"][0] == 100.0


def test_yfinance_with_two_tickers_gives_two_instruments():
    head = "Price,Close,Close,High,High\nTicker,AAPL,MSFT,AAPL,MSFT\nDate,,,,\n"
    found = read(file(head + "2024-01-02,1,5,2,6\n2024-01-03,1.5,5.5,2,6\n"))
    assert found["MSFT"]["close"].tolist() == [5.0, 5.5]
    assert found["AAPL"]["high"].tolist() == [2.0, 2.0]


def test_times_of_day_as_numbers_without_leading_zeros():
    bars = read_bars(file("Date,Time,Close\n20240131,93000,1\n20240131,160000,2\n"))
    assert bars.times.tolist() == [1_706_693_400_000_000_000, 1_706_716_800_000_000_000]
    bars = read_bars(file("Date,Time,Close\n20240131,0,1\n20240131,930,2\n"))
    assert bars.times[1] - bars.times[0] == np.timedelta64(570, "m")


@pytest.mark.parametrize(
    ("closes", "reason"),
    [
        (["1,234", "1,235"], r"row 1: '1,234' may be 1.234 or 1234, .*give --decimal"),
        (["1,234", "99,5"], r"row 2: '99,5' has a decimal comma, numbers have a point; give --decimal ,"),
        (["110'165", "110'170"], r"row 1: .* may have thousands or 32nds"),
    ],
)
def test_texts_in_json_are_decided_by_evidence_as_other_texts(closes, reason):
    records = [{"date": day, "close": close} for day, close in zip(DAYS, closes, strict=False)]
    with pytest.raises(FileError, match=reason):
        read_bars(file(json.dumps(records)))
    numbers = [{"date": DAYS[0], "close": "1,234"}, {"date": DAYS[1], "close": 1234.5}]
    assert read_bars(file(json.dumps(numbers)))["close"].tolist() == [1234.0, 1234.5]


def test_a_column_of_hours_or_minutes_is_refused_without_a_format():
    hourly = "Date,Time,Close\n20240131,9,1\n20240131,10,2\n"
    with pytest.raises(FileError, match=r"row 2: the time of day '9' may be the hour or the minute.*--date-format"):
        read_bars(file(hourly))
    for form, minutes in (("%Y%m%d %H", [540, 600]), ("%Y%m%d %H:%M", [9, 10])):
        bars = read_bars(file(hourly), date_format=form)
        assert ((bars.times - np.datetime64("2024-01-31")) / np.timedelta64(1, "m")).tolist() == minutes
    daily = read_bars(file("Date,Time,Close\n20240131,0,1\n20240201,0,2\n"))
    assert daily.times[1] == np.datetime64("2024-02-01")


def walk(steps: int, gap: float) -> list[dict[str, float]]:
    """Bars whose bodies have a deviation of 1, and whose opens are `gap` from the closes before."""
    random = np.random.default_rng(3)
    bars, close = [], 100.0
    for body, jump in random.normal(size=(steps, 2)):
        opened = close + gap * jump
        close = opened + body
        bars.append({"open": opened, "close": close, "high": max(opened, close) + 0.1, "low": min(opened, close) - 0.1})
    return bars


def headerless(bars: list[dict[str, float]], order: tuple[str, ...]) -> list[str]:
    texts = [",".join(f"{bar[name]:.4f}" for name in order) for bar in bars]
    return [f"2024-01-{day:02},{text}" for day, text in enumerate(texts, 1)]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("order", [("open", "close", "high", "low"), ("close", "open", "high", "low")])
def test_opens_that_continue_the_closes_decide_on_the_order_of_columns(order, newest_first):
    bars = walk(30, 0.2)
    rows = headerless(bars, order)
    found = read_bars(file("\n".join(rows[::-1] if newest_first else rows)))
    assert found["close"] == pytest.approx([bar["close"] for bar in bars], abs=1e-4)
    assert found["open"] == pytest.approx([bar["open"] for bar in bars], abs=1e-4)


@pytest.mark.parametrize(("steps", "gap"), [(9, 0.0), (30, 2.0)])
def test_an_order_of_columns_without_clear_evidence_is_refused(steps, gap):
    rows = headerless(walk(steps, gap), ("close", "open", "high", "low"))
    with pytest.raises(FileError, match=r"several orders of columns fit; .*--columns time=1,open=2"):
        read_bars(file("\n".join(rows)))


def test_a_row_of_units_below_the_header_is_skipped_and_said():
    bars = read_bars(file("Date,Close\n,USD\n2024-01-02,1.5\n2024-01-03,2\n"))
    assert bars["close"].tolist() == [1.5, 2.0]
    assert bars.notes == ("header line ' USD' is not used",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the file is empty"),
        ("   \n\n", "the file is empty"),
        ("Date,Close\n", "no rows with numbers"),
        ("hello world\n", "no rows with numbers"),
        ("Date,Close\n2024-01-02,1,5\n2024-01-03,1,6\n", "decimal commas in a comma-separated file"),
        ("Date,Open,Close\n2024-01-02,1,2\n2024-01-03,1,2,3\n", "row 3 has 4 fields, the header 3"),
        ("Date,Close\nyesterday,1\n2024-01-03,2\n", "row 2: 'yesterday' is not a date"),
        ("Time,Close\n09:30,1\n09:31,2\n", "times of day without dates"),
        ("Date,Close\n2024-01-02,1\n2024-01-03,oops\n", "row 3: column 'Close': 'oops' is not a number"),
        ("1,2,3\n4,5,6\n", "no header line"),
        ("2024-01-02,1,2,3,4\n2024-01-03,4,3,2,1\n", "no header line"),
        ('{"status": "error", "message": "unknown symbol XYZ"}', "the service said: unknown symbol XYZ"),
        ('{"a": [1, 2', "not valid JSON"),
        ("[]", "the JSON holds no bars"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_in_one_line(text, reason):
    with pytest.raises(FileError) as refusal:
        read_bars(file(text))
    assert reason in str(refusal.value)
    assert str(refusal.value).startswith("bars.csv: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "bars.csv: a picture (PNG), not a table"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "bars.csv: a picture (JPEG), not a table"),
        (b"GIF89a\x01\x00", "bars.csv: a picture (GIF), not a table"),
        (b"%PDF-1.7\n", "bars.csv: a PDF, not a table"),
        (b"SQLite format 3\x00", "bars.csv: a SQLite database: read the table with pandas.read_sql and pass the frame"),
        (b"name\n\xc3\x81\x8d\xff\n", "row 2: neither UTF-8 nor cp1252: no table of text, or give its encoding"),
    ],
)
def test_a_file_of_another_kind_is_named(data, reason):
    with pytest.raises(FileError) as refusal:
        read_bars(file(data.decode("latin-1"), encoding="latin-1"))
    assert reason in str(refusal.value)


def test_a_wrong_encoding_is_answered_with_another_one():
    for encoding, other in (("utf-8", "cp1252"), ("cp1252", "utf-8")):
        with pytest.raises(FileError, match=f"row 1: not valid {encoding}; .* --encoding {other}$"):
            read_bars(file("\x81\n", encoding="latin-1"), encoding=encoding)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"columns": {"price": "Close"}}, "'price' is not a role"),
        ({"columns": {"close": "Nope"}}, "--columns close=Nope: no column 'Nope'; there are date, close"),
        ({"delimiter": "ab"}, "delimiter: expected one character"),
        ({"decimal": ";"}, "decimal: expected"),
        ({"encoding": "latin-99"}, "not a known encoding"),
        ({"date_format": "YDM"}, "expected a strptime format"),
        ({"date_format": "%Y/%m/%d"}, "row 2: '2024-01-02' does not match"),
    ],
)
def test_a_wrong_option_is_refused(options, reason):
    with pytest.raises(FileError) as refusal:
        read_bars(file("Date,Close\n2024-01-02,1\n"), **options)
    assert reason in str(refusal.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings_are_recognised(encoding):
    text = "Datum;Schlusskurs;Währung\n2024-01-02;1,5;€\n2024-01-03;2,5;€\n"
    assert read_bars(file(text, encoding=encoding))["close"].tolist() == [1.5, 2.5]


def test_an_encoding_that_is_not_recognised_is_given():
    text = "日付,終値\n2024-01-02,150\n2024-01-03,151\n"
    bars = read_bars(file(text, encoding="cp932"), encoding="cp932", columns={"close": "終値"})
    assert bars["close"].tolist() == [150.0, 151.0]


def test_details_are_known_also_after_a_refusal():
    details: dict[str, str] = {}
    with pytest.raises(FileError):
        read(file("Date;Close\n2024-01-02;1,234\n2024-01-03;1,235\n"), Options(), details=details)
    assert details["delimiter"] == "semicolon"
    assert details["encoding"] == "utf-8"


@given(st.binary(max_size=200))
def test_any_bytes_are_bars_or_a_typed_error(data):
    try:
        bars = read_bars(io.BytesIO(data))
    except FileError as refusal:
        assert "\n" not in str(refusal)
        return
    assert np.isfinite(bars["close"]).all()


cells = st.one_of(
    st.sampled_from(["Date", "Close", "Open", "2024-01-02", "1,5", "1.5", "null", "", "1.234"]), st.text(max_size=6)
)


@example([["PRICE"], ["Date", "null"], ["2024-01-02"]], ",")
@given(st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6), st.sampled_from(",;\t"))
def test_any_table_is_bars_or_a_typed_error(rows, delimiter):
    try:
        bars = read_bars(file("\n".join(delimiter.join(row) for row in rows)))
    except FileError:
        return
    assert np.isfinite(bars["close"]).all()


values = st.recursive(
    st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.sampled_from(["close", "2024-01-02", "1"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["c", "t", "close", "data", "2024-01-02"]), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_any_json_is_bars_or_a_typed_error(value):
    try:
        bars = read_bars(file(json.dumps(value)))
    except FileError:
        return
    assert np.isfinite(bars["close"]).all()


def test_many_instruments_are_divided_once_and_named_shortly():
    count = 8_000
    rows = "\n".join(f"2024-01-02,S{at},{at + 1}" for at in range(count))
    found = read(file(f"Date,Symbol,Close\n{rows}"))
    assert [found[f"S{at}"]["close"].tolist() for at in (0, count - 1)] == [[1.0], [float(count)]]
    assert found["S0"].details["instruments"].endswith(f"S19 and {count - 20} more")
    with pytest.raises(FileError, match=r"too many instruments \(max 7999, got 8000\): name one, or divide the file"):
        read(file(f"Date,Symbol,Close\n{rows}"), instruments=count - 1)
    assert read(file(f"Date,Symbol,Close\n{rows}"), Options(symbol="S7"), instruments=1)["S7"]["close"] == [8.0]


def test_instruments_that_share_too_many_columns_are_refused():
    width = 4_000
    names = ",".join(["Price", *["Close"] * width])
    tickers = ",".join(["Ticker", *[f"T{at}" if at % 2 else "" for at in range(width)]])
    days = "\n".join(f"{day},{','.join(['1'] * width)}" for day in DAYS)
    with pytest.raises(FileError, match="too many columns that belong to no instrument"):
        read(file(f"{names}\n{tickers}\n{days}"))


def wide(count):
    names = ",".join(["Price", *["Close"] * count])
    tickers = ",".join(["Ticker", *[f"T{at}" for at in range(count)]])
    cells = ",".join(map(str, range(1, count + 1)))
    return f"{names}\n{tickers}\n" + "\n".join(f"{day},{cells}" for day in DAYS[:3])


def cpu(steps):
    """Seconds of this thread; a bound of 20 is far from both: some two in one pass, above a minute for every pair."""
    begun = time.thread_time()
    steps()
    return time.thread_time() - begun


def test_instruments_of_a_header_are_counted_and_chosen_before_the_division():
    count = 30_000
    text = wide(count)

    def refused():
        with pytest.raises(FileError, match=rf"too many instruments \(max 256, got {count}\)"):
            read(file(text), instruments=256)

    assert cpu(refused) < 20
    found = {}
    assert cpu(lambda: found.update(read(file(text), Options(symbol="t7"), instruments=1))) < 20
    assert found["T7"]["close"].tolist() == [8.0] * 3


@pytest.mark.parametrize("width", [101, 100_000])
def test_a_table_with_too_many_columns_is_refused_before_its_columns_are_read(width):
    text = f"{','.join(map('c{}'.format, range(width)))}\n{','.join(['1'] * width)}\n"

    def refused():
        with pytest.raises(FileError, match=rf"too many columns \(max 100, got {width}\)"):
            read(file(text), most_columns=100)

    assert cpu(refused) < 5


@pytest.mark.needs("polars")
def test_a_parquet_file_with_too_many_columns_is_refused_by_its_schema():
    polars = importlib.import_module("polars")
    content = io.BytesIO()
    polars.DataFrame({f"c{at}": [1.0] for at in range(101)}).write_parquet(content)
    with pytest.raises(FileError, match=r"too many columns \(max 100, got 101\)"):
        read(io.BytesIO(content.getvalue()), most_columns=100)


def test_the_columns_of_many_instruments_are_divided_in_one_pass():
    count = 4_000
    found = read(file(wide(count)))
    assert [found[f"T{at}"]["close"].tolist() for at in (0, count - 1)] == [[1.0] * 3, [float(count)] * 3]


@pytest.mark.parametrize("head", ["", "a long line of the vendor\n"])
def test_empty_names_at_the_end_of_a_header_are_dropped_at_once(head):
    days = np.datetime64("2000-01-01") + np.arange(5_000)
    rows = "\n".join(f"{day},{at + 1}" for at, day in enumerate(days))
    text = f"{head}Date,Close{',' * 120_000}\n{rows}"
    found = {}
    assert cpu(lambda: found.update(read(file(text)))) < 20
    assert found["bars"]["close"].tolist() == [float(at) for at in range(1, 5_001)]


def test_many_bars_without_a_close_are_skipped_at_once_and_said_in_one_note():
    count = 600_000
    text = "Open,Close\n" + "1,\n" * count + "1,5\n1,6\n" + "1,\n" * 3
    found = {}
    assert cpu(lambda: found.update(read(file(text)))) < 20
    assert found["bars"]["close"].tolist() == [5.0, 6.0]
    assert [note for note in found["bars"].notes if "skipped" in note] == [
        f"rows 2 to {count + 1}: the first bars have no close and are skipped",
        f"rows {count + 4} to {count + 6}: the last bars have no close and are skipped",
    ]


def test_json_records_without_fields_in_common_are_refused():
    count = 30_000
    records = [{"close": 1, f"x{at}": 2} for at in range(count)]
    with pytest.raises(FileError, match="have few fields in common"):
        read(file(json.dumps(records)))
    columns = {f"close{' ' * at}": {"2024-01-02": at} for at in range(1000)}
    columns["close"] = dict.fromkeys(map(str, np.datetime64("2000-01-01") + np.arange(1000)), 1)
    with pytest.raises(FileError, match="have few fields in common"):
        read(file(json.dumps(columns)))
    sparse = [{"date": day, "close": 1} | ({"dividend": 2} if at == 3 else {}) for at, day in enumerate(DAYS)]
    assert len(read_bars(file(json.dumps(sparse)))["close"]) == 10


def test_a_header_decides_on_the_encoding_of_a_long_file():
    rows = "\n".join(f"{day},{at + 1}" for at, day in enumerate(np.datetime64("1990-01-01") + np.arange(9_000)))
    found = read(file(f"日期,收盘\n{rows}\n", encoding="gb18030"))["bars"]
    assert (len(found["close"]), found.details["encoding"]) == (9_000, "gb18030")
    assert "encoding gb18030: the only one with known names of columns" in found.notes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_numbered_over_blocks_of_any_line_ends(end):
    days = np.datetime64("1990-01-01") + np.arange(9_000)
    rows = [f"{day},{at + 1}" for at, day in enumerate(days)]
    assert len(end.join(rows)) > 2 * (1 << 16)
    assert read_bars(file(end.join(["Date,Close", *rows])))["close"].tolist() == [float(at) for at in range(1, 9_001)]
    rows[8_500] = f"{days[8_500]},x"
    with pytest.raises(FileError, match="row 8502: column 'Close': 'x' is not a number"):
        read_bars(file(end.join(["Date,Close", *rows])))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_json_nested_too_deeply_is_refused(text):
    with pytest.raises(FileError, match="nested too deeply"):
        read(file(text))


@pytest.mark.parametrize(
    "content",
    [b"1,2\n" * 60, b"1," * 300 + b"1", b"1 2\n" * 60, b"[" + b"{}," * 60 + b"{}]", b"[[" + b"1," * 300 + b"1]]"],
    ids=["rows", "cells", "spaces", "records", "values"],
)
@pytest.mark.parametrize("packed", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_table_of_few_bytes_with_too_many_cells_is_refused(monkeypatch, content, packed):
    monkeypatch.setattr(grid, "MOST_CELLS", 240)
    with pytest.raises(FileError, match=r"too large: \d+ rows or more with \d+ cells \(max 240 cells"):
        read(io.BytesIO(packed(content)))


@pytest.mark.parametrize("packed", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_file_of_too_many_bytes_is_not_read_to_its_end(monkeypatch, packed, tmp_path):
    monkeypatch.setattr(source, "LARGEST", 1 << 20)
    path = tmp_path / "a.csv"
    path.write_bytes(packed(b"date,close\n" + b" " * (1 << 21)))
    for one in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(FileError, match="larger than 1 MiB"):
            read(one)


def test_an_unbuffered_pipe_is_read_to_its_end():
    """A read of such a pipe returns what the pipe holds, 64 KiB at most."""
    reading, writing = os.pipe()
    content = b"date,close\n" + b"2024-01-02,1.5\n" * 20_000

    def write():
        with os.fdopen(writing, "wb") as end:
            end.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        assert source.load(pipe).data == content
    writer.join()


@pytest.mark.needs("polars")
@pytest.mark.parametrize(
    ("rows", "text", "expected"),
    [
        (20_000_000, 0, r"too large: \d+ rows or more with \d+ cells"),
        (20_000, 100_000, "larger than 512 MiB once read"),
    ],
)
def test_a_parquet_file_of_few_bytes_that_is_huge_once_read_is_refused(rows, text, expected):
    polars = importlib.import_module("polars")
    value = polars.Series("close", ["x" * text] if text else [1.0])
    content = io.BytesIO()
    value.new_from_index(0, rows).to_frame().write_parquet(content, compression="zstd")
    assert len(content.getvalue()) < 200_000
    with pytest.raises(FileError, match=expected):
        assert cpu(lambda: read(io.BytesIO(content.getvalue()))) < 20


@pytest.mark.needs("polars")
@pytest.mark.parametrize("kind", ["String", "Categorical", "Enum"])
@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_the_bytes_of_a_text_are_counted_in_each_row(monkeypatch, kind, library):
    """The text of a category is in a file and in a frame once; it has three bytes for a character here."""
    polars = importlib.import_module("polars")
    if library == "pyarrow":
        pytest.importorskip("pyarrow")
        monkeypatch.setitem(sys.modules, "polars", None)
    text = "\u682a" * 1000
    monkeypatch.setattr(parquet, "LARGEST", 1 << 20)
    values = polars.Series("close", [text], dtype=polars.Enum([text]) if kind == "Enum" else getattr(polars, kind))
    for rows, refused in ((300, False), (400, True)):
        content = io.BytesIO()
        values.new_from_index(0, rows).to_frame().write_parquet(content)
        if refused:
            with pytest.raises(FileError, match="larger than 1 MiB once read"):
                parquet.read(content.getvalue(), 9)
        else:
            assert parquet.read(content.getvalue(), 9).rows[-1] == [text]


@pytest.mark.needs("polars")
@pytest.mark.parametrize(("kind", "place"), [("Date", 2**31 - 1), ("Date", -(2**31)), ("Datetime", 2**62)])
def test_a_date_that_polars_cannot_give_to_python_is_an_error_of_the_file(kind, place):
    """Polars panics, and a panic is no Exception."""
    polars = importlib.import_module("polars")
    content = io.BytesIO()
    whole = polars.Int32 if kind == "Date" else polars.Int64
    dates = polars.Series("date", [place] * 40, dtype=whole).cast(getattr(polars, kind))
    polars.DataFrame({"date": dates, "close": [1.0] * 40}).write_parquet(content)
    with pytest.raises(FileError, match="a parquet file that cannot be read"):
        read(io.BytesIO(content.getvalue()))


def test_pyarrow_reads_what_polars_reads_and_no_file_of_few_bytes_that_is_huge(monkeypatch):
    pytest.importorskip("pyarrow")  # no extra brings pyarrow; polars reads the files where it is installed
    polars = importlib.import_module("polars")
    large = polars.Series("close", ["x" * 100_000]).new_from_index(0, 20_000).to_frame()
    kinds = polars.Series(["a", "b", "a"] * 4).cast(polars.Categorical)
    usual = polars.DataFrame({"date": DAYS + DAYS[:2], "close": [1.5, None, 2.5] * 4, "kind": kinds, "all": [[1]] * 12})
    read_by = {}
    for library in ("polars", "pyarrow"):
        files = io.BytesIO(), io.BytesIO()
        for frame, file_ in zip((large, usual), files, strict=True):
            frame.write_parquet(file_, compression="zstd")
        with monkeypatch.context() as without:
            if library == "pyarrow":
                without.setitem(sys.modules, "polars", None)
            with pytest.raises(FileError, match="larger than 512 MiB once read"):
                parquet.read(files[0].getvalue(), 9)
            grid_ = parquet.read(files[1].getvalue(), 9)
        assert grid_.details["format"] == f"parquet (read by {library})"
        read_by[library] = grid_.names, grid_.rows
    assert read_by["polars"] == read_by["pyarrow"]
