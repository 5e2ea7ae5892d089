"""CSV and Arrow in and out."""

import asyncio
import csv
import io
import struct
import threading
import tracemalloc

import numpy as np
import polars
import pytest
from google.rpc import status_pb2

from edge.caller import Caller
from edge.tables import arrow, columns, requests, size
from market_inference.contract.generated import inference_pb2 as pb

ARROW = "application/vnd.apache.arrow.stream"
VENDORS = {
    "yahoo": (
        "Date,Open,High,Low,Close,Adj Close,Volume\n",
        lambda day, p: f"{day},{p:.2f},{p + 1:.2f},{p - 1:.2f},{p:.2f},{p:.2f},1000\n",
    ),
    "alpha vantage": (
        "timestamp,open,high,low,close,volume\n",
        lambda day, p: f"{day},{p:.4f},{p + 1:.4f},{p - 1:.4f},{p:.4f},1000\n",
    ),
    "german broker": (
        "Datum;Eröffnung;Hoch;Tief;Schlusskurs;Volumen\n",
        lambda day, p: f"{day.astype(object):%d.%m.%Y};{p:.2f};{p + 1:.2f};{p - 1:.2f};{p:.2f};1000\n".replace(
            ".2f", ""
        ),
    ),
}
DAYS = np.busday_offset("2024-01-01", np.arange(80), roll="forward")
PRICES = [100 + (at * 7) % 11 + at / 10 for at in range(80)]


def table(vendor: str, newest_first: bool = False) -> bytes:
    header, line = VENDORS[vendor]
    rows = [line(day, price) for day, price in zip(DAYS, PRICES, strict=True)]
    return (header + "".join(reversed(rows) if newest_first else rows)).encode()


def rows(answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.raw.decode())))


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_csv_gives_a_forecast_as_csv(edge, vendor):
    answer = edge.post("/v1/predict?horizon=3&quantiles=0.1,0.9", table(vendor), content_type="text/csv")
    assert answer.status == 200, answer.raw
    assert answer.headers["content-type"].startswith("text/csv")
    found = rows(answer)
    assert [row["step"] for row in found] == ["1", "2", "3"]
    assert float(found[0]["q0.1"]) < float(found[0]["point"]) < float(found[0]["q0.9"])


def test_a_forecast_of_a_csv_as_json_equals_the_same_closes_as_json(edge):
    by_csv = edge.post(
        "/v1/predict?horizon=3", table("yahoo", True), content_type="text/csv", accept="application/json"
    )
    closes = [round(price, 2) for price in PRICES]
    by_json = edge.post("/v1/predict", {"time_series": closes, "horizon": 3})
    assert by_csv.json["forecasts"][0]["forecast"] == by_json.json["forecasts"][0]["forecast"]


def test_indicators_of_a_csv_carry_the_dates(edge):
    answer = edge.post(
        "/v1/indicators?indicators=RSI,MACD:fastperiod=8&last=5", table("yahoo"), content_type="text/csv"
    )
    found = rows(answer)
    assert [row["time"] for row in found] == [str(day) for day in DAYS[-5:]]
    assert {"RSI", "MACD.macd", "MACD.macdsignal", "MACD.macdhist"} <= set(found[0])


@pytest.mark.parametrize("kind", ["text/csv", ARROW])
def test_an_indicator_that_has_no_value_yet_keeps_its_column(edge, kind):
    head = b"".join(table("yahoo").splitlines(keepends=True)[:5])
    answer = edge.post("/v1/indicators?indicators=RSI&last=1", head, content_type="text/csv", accept=kind)
    frame = (polars.read_csv if kind == "text/csv" else polars.read_ipc_stream)(io.BytesIO(answer.raw))
    assert frame["RSI"].to_list() == [None]


@pytest.mark.parametrize("kind", ["text/csv", ARROW])
def test_a_forecast_of_a_csv_carries_the_dates_of_its_steps(edge, kind):
    answer = edge.post("/v1/predict?horizon=4", table("german broker", True), content_type="text/csv", accept=kind)
    frame = (polars.read_csv if kind == "text/csv" else polars.read_ipc_stream)(io.BytesIO(answer.raw))
    assert frame["time"].to_list() == [str(day) for day in np.busday_offset(DAYS[-1], np.arange(1, 5))]


def test_a_forecast_has_no_dates_where_those_of_the_bars_are_irregular(edge):
    lines = table("yahoo").splitlines(keepends=True)
    answer = edge.post("/v1/predict?horizon=2", b"".join(lines[:20] + lines[60:]), content_type="text/csv")
    assert answer.status == 200, answer.raw
    assert "time" not in rows(answer)[0]


def test_a_horizon_beyond_the_contract_makes_no_dates():
    found = requests.bars(table("yahoo"), "text/csv", {})
    message, times = requests._message("Predict", found, {"horizon": str(10**9)})
    assert message.horizon == 10**9
    assert [len(labels) for labels in times.values()] == [365]


@pytest.mark.parametrize(
    "text",
    [
        "RSI MACD:fastperiod=8,slowperiod=20 SMA:timeperiod=5",
        "RSI,MACD:fastperiod=8,slowperiod=20,SMA:timeperiod=5",
        "RSI, MACD:fastperiod=8,slowperiod=20, SMA:timeperiod=5,",
        "RSI;MACD:fastperiod=8,slowperiod=20;SMA:timeperiod=5",
    ],
)
def test_indicators_of_the_query_are_separated_by_commas_or_spaces(text):
    message = requests._indicators(requests.bars(table("yahoo"), "text/csv", {}), {"indicators": text})
    found = [(one.name, dict(one.params)) for one in message.indicators]
    assert found == [("RSI", {}), ("MACD", {"fastperiod": 8, "slowperiod": 20}), ("SMA", {"timeperiod": 5})]


def test_texts_come_as_a_column_and_scores_go_back(edge):
    body = b'id,headline\n1,"Profit rose sharply, again"\n2,Shares plunge after heavy losses\n'
    found = rows(edge.post("/v1/sentiment", body, content_type="text/csv"))
    assert [row["label"] for row in found] == ["positive", "negative"]


def test_arrow_in_and_arrow_out(edge):
    frame = polars.DataFrame({"date": DAYS.astype("datetime64[ms]"), "close": PRICES})
    target = io.BytesIO()
    frame.write_ipc_stream(target)
    answer = edge.post("/v1/predict?horizon=4", target.getvalue(), content_type=ARROW)
    assert answer.headers["content-type"] == ARROW
    found = polars.read_ipc_stream(io.BytesIO(answer.raw))
    assert found["step"].to_list() == [1, 2, 3, 4]
    assert found["point"].dtype == polars.Float64


@pytest.mark.parametrize(
    ("path", "body", "kind", "field", "words"),
    [
        ("/v1/predict?horizon=3", b"", "text/csv", "body", "empty"),
        ("/v1/predict?horizon=x", table("yahoo"), "text/csv", "horizon", "whole number"),
        ("/v1/predict?quantiles=a", table("yahoo"), "text/csv", "quantiles", "numbers"),
        ("/v1/predict", b"Date,Close\n2024-01-01,abc\n2024-01-02,5\n", "text/csv", "body", "abc"),
        ("/v1/predict", b"\x1f\x8b123", "text/csv", "body", "compressed"),
        ("/v1/predict", b"not arrow", ARROW, "body", "Arrow"),
        ("/v1/indicators?indicators=NOPE", table("yahoo"), "text/csv", "indicators[0].name", "NOPE"),
        ("/v1/indicators?indicators=RSI,NOPE", table("yahoo"), "text/csv", "indicators[1].name", "NOPE"),
        ("/v1/indicators?indicators=MACD:fast,slow=3", table("yahoo"), "text/csv", "indicators", "MACD:fast"),
        ("/v1/sentiment", b"a,b\n1,2\n", "text/csv", "body", "column=NAME"),
        ("/v1/sentiment", b"headline\n" + b"x\n" * 100_000, "text/csv", "row", "too long (max 100, got 100000)"),
        ("/v1/sentiment", b"x\n" * 101, "text/csv", "row", "too long (max 100, got 101)"),
        ("/v1/sentiment", b"\xff\xfe\x00", "text/csv", "body", "not understood"),
        ("/v1/analyze", b"a,b\n1,2\n", "text/csv", "Content-Type", "application/json"),
        ("/v1/bars", b"%PDF-1.4", "text/csv", "body", "PDF"),
    ],
)
def test_a_bad_table_is_refused_by_field_and_reason(edge, path, body, kind, field, words):
    answer = edge.post(path, body, content_type=kind)
    assert answer.status in (400, 415), answer.raw
    [first, *_] = answer.json["errors"]
    assert first["field"] == field
    assert words in first["description"]


UNDATED = "".join(f"{day:02}/01/24;1,5\n" for day in range(1, 9))
THOUSANDS = "".join(f"2024-01-{day:02};1,{day}50\n" for day in range(1, 9))


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("column=Adj", "Date,Close\n2024-01-02,1\n", "column=Adj: no column 'Adj'; there are date, close"),
        ("", "Date,Close,Close\n2024-01-02,1,1\n", "close: Close (column 2) or Close (column 3)? choose with column="),
        ("", f"Date;Close\n{UNDATED}", "give date_format="),
        ("", f"Date;Close\n{THOUSANDS}", "give decimal=. or decimal=,"),
        ("", "Time,Close\n10:00,1\n10:01,2\n", "rename one to time"),
        ("date_format=%25Y", "Date,Close\n2024-01-02,1\n", "does not match date_format='%Y'"),
        ("", b"Date,Close\n2024-01-02,1\n\0\0\0\n", "send UTF-8"),
    ],
)
def test_a_hint_names_a_parameter_of_the_query(edge, query, text, words):
    body = text if isinstance(text, bytes) else text.encode()
    answer = edge.post(f"/v1/predict?horizon=2&{query}", body, content_type="text/csv")
    [first] = answer.json["errors"]
    assert (answer.status, first["field"]) == (400, "body")
    assert words in first["description"]
    assert "--" not in first["description"]


def test_a_note_names_a_parameter_of_the_query(edge):
    body = "Date,Close,Adj Close\n" + "".join(f"{day},{at + 1},{at + 2}\n" for at, day in enumerate(DAYS))
    [one] = edge.post("/v1/bars", body.encode(), content_type="text/csv").json["instruments"]
    assert one["notes"] == ["closes are not adjusted; for 'Adj Close' give column='Adj Close'"]


@pytest.mark.parametrize("path", ["/v1/predict?horizon=2", "/v1/indicators?indicators=RSI&last=2"])
def test_the_readers_notes_are_in_the_answer(edge, path):
    def asked(newest_first: bool, accept: str):
        return edge.post(path, table("yahoo", newest_first), content_type="text/csv", accept=accept)

    [note] = asked(True, "application/json").json["notes"][""]
    assert "reversed" in note
    assert [row["notes"] for row in rows(asked(True, "text/csv"))] == [note, note]
    assert "notes" not in asked(False, "application/json").json
    assert "notes" not in rows(asked(False, "text/csv"))[0]


def test_notes_stand_before_a_large_answer(edge):
    days = np.datetime64("2000-01-01") + np.arange(9000)
    body = b"Date,Close\n" + b"".join(f"{day},{100 + at % 7}\n".encode() for at, day in enumerate(days[::-1]))
    answer = edge.post(
        "/v1/indicators?indicators=RSI,SMA,EMA,MACD", body, content_type="text/csv", accept="application/json"
    )
    assert len(answer.raw) > 1 << 19
    assert answer.json["notes"][""]
    assert len(answer.json["panels"][0]["indicators"]["indicators"]) == 4


def test_a_symbol_cannot_become_a_formula_of_a_spreadsheet(edge):
    body = {"series": [{"symbol": "=HYPERLINK(1)", "values": PRICES}], "horizon": 1}
    found = rows(edge.post("/v1/predict", body, accept="text/csv"))
    assert found[0]["symbol"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize(
    "text",
    ["=1", "+1", "-1", "@a", "\t1", "\r1", "\n=1", "\t=1", "\r=1", " =1", "\u00a0 =1", "\u200b=1", "\x00=1", "\ufeff@a",
     "\uff1d1", "\uff0b1", "\uff0d1", "\uff20a", " \uff1d1", "\ufe621", "\u207a1", "\u208c1"],
)  # fmt: skip
def test_a_text_that_a_spreadsheet_takes_for_a_formula_is_quoted(text):
    assert columns._harmless(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "AAPL", "1=2", "a\n=1", "'=1", "\u00e9=", "\u2014", "(=1)", "#1", None, 1.5, -1]
)
def test_other_cells_stay(text):
    assert columns._harmless(text) is text


@pytest.mark.parametrize("behind", [b"\0", b"PK\3\4", None])
def test_bytes_behind_the_end_of_an_arrow_stream_are_refused(behind):
    """The bytes were ignored: a second table in the same body, for one."""
    raw = stream(polars.DataFrame({"close": [1.0, 2.0]}))
    behind = raw if behind is None else behind
    with pytest.raises(ValueError, match=f"with {len(behind)} bytes behind its end"):
        columns.read_arrow(raw + behind)


def test_a_file_of_bars_comes_back_as_columns_with_notes(edge):
    found = edge.post("/v1/bars", table("alpha vantage", True), content_type="text/csv").json
    [one] = found["instruments"]
    assert set(one["columns"]) == {"open", "high", "low", "close", "volume"}
    assert one["times"][0] == "2024-01-01"
    assert any("reversed" in note for note in one["notes"])


def test_the_samples_are_read_like_files(edge):
    names = [one["name"] for one in edge.get("/v1/samples").json]
    for name in names:
        sample = edge.get(f"/v1/samples/{name}")
        assert sample.headers["content-type"].startswith("text/csv")
        [one] = edge.post("/v1/bars", sample.raw, content_type="text/csv").json["instruments"]
        assert len(one["times"]) == 750
        columns = {key: np.array(values) for key, values in one["columns"].items()}
        assert (columns["low"] <= np.minimum(columns["open"], columns["close"])).all()
        assert (columns["high"] >= np.maximum(columns["open"], columns["close"])).all()
    assert edge.get("/v1/samples/none").status == 404


SPLIT = [(100 + at / 10 + at % 5 / 5) / (1 if at < 110 else 2) for at in range(120)]


@pytest.mark.parametrize("kind", ["text/csv", ARROW])
def test_warnings_and_coverage_by_phase_reach_a_table(edge, kind):
    asked = {"time_series": SPLIT, "horizon": 7, "period": 5}
    [one] = edge.post("/v1/predict", asked).json["forecasts"]
    answer = edge.post("/v1/predict", asked, accept=kind)
    frame = (polars.read_csv if kind == "text/csv" else polars.read_ipc_stream)(io.BytesIO(answer.raw))
    coverage, warnings = one["forecast"]["coverage"], one["forecast"]["warnings"]
    assert any(warning["code"] == "suspected_split" for warning in warnings)
    for warning in warnings:
        assert all(f"{warning['code']}: {warning['message']}" in cell for cell in frame["warnings"])
    for name in ("nominal", "measured", "origins"):
        assert frame[f"coverage_{name}"].to_list() == [coverage[name]] * 7
    phases = [(step + 1) % 5 for step in range(7)]
    assert frame["phase_measured"].to_list() == [coverage["phase_measured"][phase] for phase in phases]
    assert frame["phase_origins"].to_list() == [coverage["phase_origins"][phase] for phase in phases]


def test_a_period_of_the_query_is_that_of_the_request(edge):
    answer = edge.post("/v1/predict?horizon=2&period=5", table("yahoo"), content_type="text/csv")
    assert "phase_measured" in rows(answer)[0]


def test_covariates_of_the_query_are_columns_of_the_table(edge):
    bars = requests.bars(table("yahoo"), "text/csv", {})
    message = requests._predict(bars, {"covariates": "volume,Open", "horizon": "2"})
    [one] = bars.values()
    assert list(message.covariates) == ["volume", "Open"]
    np.testing.assert_array_equal(message.series[0].past_covariates, [*one["volume"], *one["open"]])
    answer = edge.post("/v1/predict?horizon=2&covariates=volume", table("yahoo"), content_type="text/csv")
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "covariates")
    assert answer.json["reason"] == "NOT_TAKEN_BY_MODEL"
    many = edge.post(f"/v1/predict?covariates={','.join('v' * 17)}", table("yahoo"), content_type="text/csv")
    assert (many.json["errors"][0]["field"], many.json["errors"][0]["limit"]) == ("covariates", 16)


def test_a_warning_of_a_text_reaches_a_table(edge):
    found = rows(edge.post("/v1/sentiment", b"headline\n12345 67890 = 5\n", content_type="text/csv"))
    assert found[0]["warnings"].startswith("text_mostly_numbers: ")


def test_close_levels_stay_apart():
    levels = [0.1, 0.1000001, 0.1000002]
    forecast = pb.Forecast(point=[1.0], quantiles=[1.0, 2.0, 3.0])
    answer = pb.PredictResponse(quantile_levels=levels, forecasts=[pb.SeriesForecast(forecast=forecast)])
    found = columns.of(answer, {}, {})
    assert [found[f"q{level}"] for level in levels] == [[1.0], [2.0], [3.0]]


def test_panels_of_unequal_length_and_failures_share_a_table():
    """Columns end at the newest bar; a failed panel has a row; what is not finite is missing."""

    def panel(symbol: str, **values: list[float]) -> pb.PanelIndicators:
        found = [pb.Indicator(name=name, outputs=[pb.IndicatorOutput(values=one)]) for name, one in values.items()]
        return pb.PanelIndicators(symbol=symbol, indicators=pb.IndicatorSet(indicators=found))

    failed = pb.PanelIndicators(symbol="B", error=status_pb2.Status(code=3, message="too short"))
    panels = [panel("A", SMA=[np.nan, 1.5, 2.5], RSI=[50.0]), failed, panel("C", RSI=[np.inf]), panel("D")]
    found = columns.of(pb.ComputeIndicatorsResponse(panels=panels), {"A": ["1", "2", "3", "4"], "C": []}, {})
    assert columns.write(found, "text/csv").decode().split("\r\n") == [
        "symbol,time,SMA,RSI,error", "A,2,,,", "A,3,1.5,,", "A,4,2.5,50.0,", "B,,,,too short", "C,,,,", "",
    ]  # fmt: skip
    assert columns.read_arrow(columns.write(found, ARROW)) == {
        "symbol": ["A", "A", "A", "B", "C"],
        "time": ["2", "3", "4", None, None],
        "SMA": [None, 1.5, 2.5, None, None],
        "RSI": [None, None, 50.0, None, None],
        "error": [None, None, None, "too short", None],
    }


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("horizon=3&quantile=0.1", "quantile", "is not a parameter; there are: horizon, quantiles"),
        ("horizon=3&horizon=4", "horizon", "stands twice"),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(edge, query, field, words):
    answer = edge.post(f"/v1/predict?{query}", table("yahoo"), content_type="text/csv")
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, field)
    assert words in answer.json["detail"]


def test_a_date_format_with_a_directive_twice_is_refused(edge):
    answer = edge.post("/v1/predict?date_format=%25Y%25Y", table("yahoo"), content_type="text/csv")
    assert (answer.status, answer.json["reason"]) == (400, "INVALID_REQUEST")
    assert "has a directive twice" in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"close\n" * ((1 << 20) + 1), "too many rows"), (b"," * ((8 << 20) + 1), "too many fields")],
    ids=["rows", "fields"],
)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/sentiment", "/v1/bars"])
def test_a_table_too_large_for_any_request_is_not_read(edge, path, body, words):
    answer = edge.post(path, body, content_type="text/csv")
    assert (answer.status, answer.json["reason"]) == (400, "INVALID_REQUEST")
    assert words in answer.json["detail"]


def minutes(rows: int, columns: int) -> bytes:
    times = np.datetime64("2024-01-01T00:00") + np.arange(rows)
    line = ",1.5" * (columns - 1)
    names = ",".join(["time", "close", *(f"other {at}" for at in range(columns - 2))])
    return "\n".join([names, *(f"{time}{line}" for time in times)]).encode()


def share(rows: int, cells: int, kind: str) -> int:
    """The bytes that docs/http.md tells."""
    return 300 * rows + 80 * cells if kind == "text/csv" else 200 * rows + 128 * cells


@pytest.mark.parametrize("kind", ["text/csv", ARROW])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/bars"])
def test_a_table_above_its_share_of_the_memory_is_refused_by_its_rows_and_cells(edge, path, kind):
    most = (128 << 20) * 7 // 16
    count = most // share(1, 7, kind) + 1
    if kind == ARROW:
        raw = stream(
            polars.DataFrame({"close": np.arange(count) + 1.0, **{str(at): np.ones(count) for at in range(6)}})
        )
    else:
        raw = minutes(count, 7)
    cells = size.of(raw, kind, 0).cells
    assert 7 * count <= cells <= 7 * (count + 1)
    answer = edge.post(path, raw, content_type=kind)
    assert (answer.status, answer.json["reason"]) == (413, "REQUEST_TOO_LARGE")
    assert f"{count} rows with {cells} cells take about " in answer.json["detail"]
    assert f"(max {most} for a table)" in answer.json["detail"]


@pytest.mark.parametrize("kind", ["text/csv", ARROW])
def test_a_table_within_its_share_of_the_memory_is_read(edge, kind):
    count = (120 << 20) * 7 // 16 // share(1, 2, kind)
    whole = minutes(count, 2)
    if kind == ARROW:
        whole = stream(polars.DataFrame({"time": np.arange(count) + 1_700_000_000, "close": np.ones(count)}))
    answer = edge.post("/v1/predict?horizon=2", whole, content_type=kind)
    assert answer.status == 200, answer.raw


@pytest.mark.parametrize("kind", ["text/csv", ARROW])
def test_the_memory_of_a_table_is_at_least_that_of_the_objects_read(kind):
    count = 20_000
    raw = minutes(count, 6)
    if kind == ARROW:
        frame = polars.DataFrame(
            {"close": np.arange(count) / 7 + 1, **{str(at): np.ones(count) / 3 for at in range(5)}}
        )
        raw = stream(frame)
        requests.bars(raw, kind, {})  # polars keeps memory of its own from the first stream on
    tracemalloc.start()
    try:
        requests.bars(raw, kind, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    memory = size.of(raw, kind, 0).memory
    assert 0.6 * memory < peak < memory


def stream(frame: polars.DataFrame, compression: str = "uncompressed") -> bytes:
    made = io.BytesIO()
    frame.write_ipc_stream(made, compression=compression)
    return made.getvalue()


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
@pytest.mark.parametrize(
    "frame",
    [
        polars.DataFrame({"close": np.arange(1000.0)}),
        polars.DataFrame({"text": ["a", None] * 50, "kind": polars.Series(["x", "y"] * 50, dtype=polars.Categorical)}),
        polars.DataFrame({"close": polars.Series([], dtype=polars.Float64)}),
    ],
    ids=["numbers", "texts", "empty"],
)
def test_an_arrow_stream_within_the_limits_is_read(frame, compression):
    assert columns.read_arrow(stream(frame, compression)) == frame.to_dict(as_series=False)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_arrow_stream_is_measured_before_it_is_read(compression):
    rows = arrow.MOST_ROWS
    wide = polars.DataFrame({str(place): np.zeros(rows) for place in range(9)})
    raw = stream(wide, compression)
    assert len(raw) < arrow.MOST_BYTES / 50
    with pytest.raises(ValueError, match="too many bytes"):
        arrow.check(raw)
    with pytest.raises(ValueError, match="too many rows"):
        arrow.check(stream(polars.DataFrame({"a": np.zeros(rows + 1)}), compression))


@pytest.mark.parametrize("count", ["bytes", "rows"])
def test_a_negative_count_in_an_arrow_stream_makes_no_room(count):
    rows = 100_000
    kind = "zstd" if count == "bytes" else "uncompressed"
    raw = stream(polars.DataFrame({str(place): np.zeros(rows) for place in range(100)}), kind)
    true = struct.pack("<q", 8 * rows if count == "bytes" else rows)
    at = raw.rindex(true) if count == "bytes" else raw.index(true)
    negative = raw[:at] + struct.pack("<q", -99 * 8 * rows) + raw[at + 8 :]
    with pytest.raises(ValueError, match="too many bytes"):
        arrow.check(raw)
    with pytest.raises(ValueError, match="is damaged"):
        arrow.check(negative)


def test_arrow_rows_without_bytes_are_counted():
    with pytest.raises(ValueError, match="too many rows"):
        arrow.check(stream(polars.DataFrame({"a": polars.repeat(None, arrow.MOST_ROWS + 1, eager=True)})))


def test_arrow_rows_that_share_bytes_are_counted_each():
    shared = polars.DataFrame({"text": ["y" * 1_000_000]}).select(polars.col("text").gather([0] * 100))
    raw = stream(shared)
    assert len(raw) < 2_000_000
    with pytest.raises(ValueError, match="too many bytes"):
        columns.read_arrow(raw)


@pytest.mark.parametrize("kind", [polars.Categorical, polars.Enum(["y" * 100_000])], ids=["categorical", "enum"])
def test_arrow_rows_of_one_category_are_counted_each(kind):
    column = polars.Series("text", ["y" * 100_000], dtype=kind)
    assert columns.read_arrow(stream(polars.DataFrame({"text": column})))["text"] == ["y" * 100_000]
    raw = stream(polars.DataFrame({"text": column.gather([0] * 1000)}))
    assert len(raw) < 300_000
    with pytest.raises(ValueError, match="too many bytes"):
        columns.read_arrow(raw)
    with pytest.raises(ValueError, match="too many bytes"):
        columns.parquet_of(raw)


def test_arrow_rows_of_long_categories_are_not_taken_for_small_ones():
    column = polars.Series("text", ["y" * 1000], dtype=polars.Categorical).gather([0] * 10_000)
    with pytest.raises(ValueError, match=r"too many bytes of categories in its rows \(max 1048576, got 10000000\)"):
        columns.parquet_of(stream(polars.DataFrame({"text": column})))
    short = polars.Series("symbol", ["AAPL", "MSFT"] * 50_000, dtype=polars.Categorical)
    assert columns.read_arrow(stream(polars.DataFrame({"symbol": short})))["symbol"][-1] == "MSFT"


@pytest.mark.parametrize("rows", [0, 1])
def test_an_arrow_stream_with_too_many_columns_is_refused(rows):
    raw = stream(polars.DataFrame({f"c{at}": [1.0] * rows for at in range(arrow.MOST_COLUMNS + 1)}))
    with pytest.raises(ValueError, match=r"too many columns \(max 4096, got 4097\)"):
        columns.parquet_of(raw)


def test_a_csv_with_too_many_columns_is_refused(edge):
    wide = ",".join(map("c{}".format, range(60_000))) + "\n" + ",".join(["1"] * 60_000)
    answer = edge.post("/v1/predict", wide.encode(), content_type="text/csv")
    assert answer.status == 400
    assert b"too many columns (max 4096, got 60000)" in answer.raw


async def test_the_tables_of_one_client_wait_for_one_thread_and_other_clients_do_not():
    tables, done = requests.Tables(), []
    first = threading.Event()

    def work(name: str, until: threading.Event | None = None) -> None:
        if until is not None:
            until.wait()
        done.append(name)

    many, other = Caller("1", "", "", counted_as="many"), Caller("2", "", "", counted_as="other")
    waiting = [asyncio.create_task(tables._in_turn(many, work, "many", first)) for _ in range(5)]
    await tables._in_turn(other, work, "other")
    await tables._in_turn(other, work, "other")
    assert done == ["other"] * 2
    first.set()
    await asyncio.gather(*waiting)
    assert done == ["other"] * 2 + ["many"] * 5
    assert not tables._locks


def test_arrow_values_without_bytes_are_counted():
    nulls = polars.repeat(None, 1 << 17, eager=True)
    raw = stream(polars.DataFrame({str(place): nulls for place in range(65)}))
    assert len(raw) < 20_000
    with pytest.raises(ValueError, match="too many values"):
        columns.read_arrow(raw)
    few = polars.DataFrame({str(place): nulls for place in range(2)})
    assert size.of(stream(few), ARROW, 0).cells == 2 << 17


@pytest.mark.parametrize("kind", [polars.List(polars.Null), polars.Array(polars.Null, 3)], ids=["list", "array"])
def test_arrow_cells_hold_one_value(kind):
    nested = polars.DataFrame({"text": polars.Series([[None] * 3] * 2, dtype=kind)})
    with pytest.raises(ValueError, match="lists or records"):
        columns.read_arrow(stream(nested))


@pytest.mark.parametrize("path", ["/v1/bars", "/v1/predict?horizon=3", "/v1/sentiment"])
@pytest.mark.parametrize("dates", [("Date", "Int32", 2**31 - 40), ("Datetime", "Int64", 2**62)], ids=["days", "times"])
def test_a_date_that_polars_cannot_give_to_python_is_refused(edge, path, dates):
    """Polars panics, and a panic is no Exception: uvicorn answered 500 without a document."""
    kind, whole, first = dates
    far = polars.Series("date", [first + at for at in range(40)], dtype=getattr(polars, whole))
    frame = polars.DataFrame([far.cast(getattr(polars, kind)), polars.Series("close", PRICES[:40])])
    answer = edge.post(path, stream(frame), content_type=ARROW)
    assert answer.status == 400, answer.raw
    assert answer.json["errors"][0]["field"] == "body"


def of_one_batch(messages: int, buffers: int, padding: int = 0) -> bytes:
    """An Arrow IPC stream whose messages all point to the same batch, with so many empty buffers."""
    each = 12 + padding
    tables = each * messages  # in the header of the last message
    message, batch, vector = tables + 12, tables + 40, tables + 56
    shared = b"".join(
        (
            struct.pack("<HHHHHxx", 10, 16, 0, 4, 8),
            struct.pack("<iB3xI4x", message - tables, 3, batch - message - 8),
            struct.pack("<HHHHHxx", 10, 16, 0, 0, 4),
            struct.pack("<iI8x", batch - (message + 16), vector - batch - 4),
            struct.pack("<I", buffers),
            bytes(16 * buffers),
        )
    )
    lengths = [4 + padding] * (messages - 1) + [4 + padding + len(shared)]
    heads = [struct.pack("<IiI", 0xFFFFFFFF, n, message - (each * i + 8)) for i, n in enumerate(lengths)]
    return b"".join((*[head + bytes(padding) for head in heads], shared, struct.pack("<Ii", 0xFFFFFFFF, 0)))


def test_arrow_batches_that_share_a_list_of_buffers_are_counted_each():
    assert arrow.check(of_one_batch(1, 8_000)) == (0, 0, 0)
    with pytest.raises(ValueError, match="a message is damaged"):
        arrow.check(of_one_batch(10_000, 7_800))


def test_arrow_messages_without_content_are_counted():
    assert arrow.check(of_one_batch(1_000, 1, padding=96)) == (0, 0, 0)
    with pytest.raises(ValueError, match="a message is damaged"):
        arrow.check(of_one_batch(1_000, 1, padding=64))


def test_every_prefix_of_an_arrow_stream_is_refused_or_read():
    raw = stream(polars.DataFrame({"a": np.arange(5.0)}), "zstd")
    for length in range(1, len(raw)):
        try:
            arrow.check(raw[:length])
        except ValueError:
            continue
        columns.read_arrow(raw[:length])
