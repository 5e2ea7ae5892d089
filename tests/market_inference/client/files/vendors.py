"""Files of bars in the formats of vendors, brokers and libraries, with invented bars.

`python tests/market_inference/client/files/vendors.py FOLDER` writes all files. The formats follow the vendors'
documentation and public examples; the prices are a random walk.
"""

import bz2
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 60
FIRST = datetime(2024, 1, 15, tzinfo=UTC)


@dataclass(frozen=True)
class Truth:
    """The invented bars, oldest first."""

    times: list[datetime]
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray

    def rows(self) -> Iterator[tuple[datetime, float, float, float, float, float]]:
        """Tuples of time, open, high, low, close, volume."""
        columns = (self.open, self.high, self.low, self.close, self.volume)
        yield from zip(self.times, *(column.tolist() for column in columns), strict=True)


def truth(*, start: float = 187.0, digits: int = 2, step: timedelta = timedelta(days=1), seed: int = 7) -> Truth:
    """Bars on weekdays (for daily steps) or in fixed steps."""
    rng = np.random.default_rng(seed)
    close = np.round(start * np.exp(np.cumsum(rng.normal(0, 0.01, COUNT))), digits)
    opened = np.round(np.roll(close, 1) * (1 + rng.normal(0, 0.002, COUNT)), digits)
    opened[0] = round(start, digits)
    high = np.round(np.maximum(opened, close) * (1 + rng.uniform(0.001, 0.01, COUNT)), digits)
    low = np.round(np.minimum(opened, close) * (1 - rng.uniform(0.001, 0.01, COUNT)), digits)
    volume = np.floor(rng.uniform(1e6, 9e7, COUNT))
    times, now = [], FIRST
    while len(times) < COUNT:
        if step < timedelta(days=1) or now.weekday() < 5:
            times.append(now)
        now += step
    return Truth(times, opened, high, low, close, volume)


@dataclass(frozen=True)
class Case:
    """A file, and the right result: the bars of `truth`, or a refusal.

    `columns`: the columns to be read. `refused`: a part of the error. `options`: the options for reading a refused
    file. `digits`: relative tolerance of the volume as 10**-digits, for files with volumes such as 5.16M.
    """

    name: str
    data: bytes
    truth: Truth
    columns: Sequence[str] = ("open", "high", "low", "close", "volume")
    times: bool = True
    note: str = ""
    refused: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    digits: int = 12


CASES: list[Callable[[], Case]] = []
EUROPE = str.maketrans(",.", ".,")


def case(made: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(made)
    return made


def lines(*rows: str, end: str = "\n") -> bytes:
    return (end.join(rows) + end).encode()


def table(
    head: str, bars: Truth, row: Callable[..., str], *, newest_first: bool = False, tail: Sequence[str] = ()
) -> str:
    body = [row(*bar) for bar in bars.rows()]
    return "\n".join([*([head] if head else []), *(body[::-1] if newest_first else body), *tail]) + "\n"


@case
def plain() -> Case:
    bars = truth()
    return Case(
        "plain.csv",
        table(
            "date,open,high,low,close,volume", bars, lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},{o},{h},{w},{c},{v:.0f}"
        ).encode(),
        bars,
    )


@case
def yahoo_download() -> Case:
    bars = truth()
    text = table(
        "Date,Open,High,Low,Close,Adj Close,Volume",
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},{o:.6f},{h:.6f},{w:.6f},{c:.6f},{c * 0.98:.6f},{v:.0f}",
    )
    return Case("AAPL-yahoo.csv", text.encode(), bars, note="not adjusted")


@case
def yahoo_null_rows() -> Case:
    bars = truth()
    rows = [f"{t:%Y-%m-%d},{o:.6f},{h:.6f},{w:.6f},{c:.6f},{c:.6f},{v:.0f}" for t, o, h, w, c, v in bars.rows()]
    rows.insert(20, "2024-02-11,null,null,null,null,null,null")
    text = "\n".join(["Date,Open,High,Low,Close,Adj Close,Volume", *rows]) + "\n"
    return Case("yahoo-null.csv", text.encode(), bars, note="row 22 without values skipped")


@case
def yfinance_three_headers() -> Case:
    bars = truth()
    head = "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,"
    text = table(head, bars, lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},{c!r},{h!r},{w!r},{o!r},{v:.0f}")
    return Case("yfinance.csv", text.encode(), bars)


@case
def yfinance_by_ticker_trailing_nan() -> Case:
    bars = truth()
    head = "Ticker,AAPL,AAPL,AAPL,AAPL,AAPL\nPrice,Open,High,Low,Close,Volume\nDate,,,,,"
    text = table(
        head,
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y-%m-%d} 00:00:00-05:00,{o},{h},{w},{c},{v:.0f}",
        tail=["2024-06-14 00:00:00-04:00,,,,,"],
    )
    shifted = Truth(
        [t + timedelta(hours=5) for t in bars.times], bars.open, bars.high, bars.low, bars.close, bars.volume
    )
    return Case("yfinance-by-ticker.csv", text.encode(), shifted, note="without values skipped")


@case
def yfinance_history() -> Case:
    bars = truth()
    text = table(
        "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits",
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y-%m-%d %H:%M:%S}+00:00,{o},{h},{w},{c},{v:.0f},0.0,0.0",
    )
    return Case("yfinance-history.csv", text.encode(), bars)


@case
def alpha_vantage_csv() -> Case:
    bars = truth()
    text = table(
        "timestamp,open,high,low,close,volume",
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},{o:.4f},{h:.4f},{w:.4f},{c:.4f},{v:.0f}",
        newest_first=True,
    ).replace("\n", "\r\n")
    return Case("alpha-vantage.csv", text.encode(), bars, note="reversed")


@case
def alpha_vantage_json() -> Case:
    bars = truth()
    series = {
        f"{t:%Y-%m-%d}": {
            "1. open": f"{o:.4f}",
            "2. high": f"{h:.4f}",
            "3. low": f"{w:.4f}",
            "4. close": f"{c:.4f}",
            "5. volume": f"{v:.0f}",
        }
        for t, o, h, w, c, v in list(bars.rows())[::-1]
    }
    meta = {
        "1. Information": "Daily Prices",
        "2. Symbol": "IBM",
        "4. Output Size": "Compact",
        "5. Time Zone": "US/Eastern",
    }
    return Case(
        "IBM.json", json.dumps({"Meta Data": meta, "Time Series (Daily)": series}).encode(), bars, note="reversed"
    )


@case
def alpha_vantage_limit() -> Case:
    answer = {"Information": "The rate limit of the API key is 25 requests per day."}
    return Case("limit.json", json.dumps(answer).encode(), truth(), refused="rate limit")


@case
def nasdaq_com() -> Case:
    bars = truth()
    text = table(
        "Date,Close/Last,Volume,Open,High,Low",
        bars,
        lambda t, o, h, w, c, v: f"{t:%m/%d/%Y},${c:.2f},{v:.0f},${o:.2f},${h:.2f},${w:.2f}",
        newest_first=True,
    )
    return Case("HistoricalData_1700000000.csv", text.encode(), bars, note="reversed")


@case
def investing_com() -> Case:
    bars = truth(start=4096.4)
    text = table(
        '"Date","Price","Open","High","Low","Vol.","Change %"',
        bars,
        lambda t, o, h, w, c, v: f'"{t:%m/%d/%Y}","{c:,.2f}","{o:,.2f}","{h:,.2f}","{w:,.2f}","{v / 1e6:.2f}M","0.12%"',
        newest_first=True,
    )
    return Case("S&P 500 Historical Data.csv", b"\xef\xbb\xbf" + text.encode(), bars, digits=2, note="reversed")


@case
def investing_com_german() -> Case:
    bars = truth(start=15234.5)
    text = table(
        '"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"',
        bars,
        lambda t, o, h, w, c, v: ",".join(
            f'"{cell}"'
            for cell in (
                f"{t:%d.%m.%Y}",
                *(f"{x:,.2f}".translate(EUROPE) for x in (c, o, h, w)),
                f"{v / 1e6:.2f}".translate(EUROPE) + "M",
                "0,12%",
            )
        ),
        newest_first=True,
    )
    return Case("DAX Historische Daten.csv", text.encode(), bars, digits=2)


@case
def german_semicolons_cp1252() -> Case:
    bars = truth()
    text = table(
        "Datum;Eröffnung;Hoch;Tief;Schlusskurs;Volumen",
        bars,
        lambda t, o, h, w, c, v: f"{t:%d.%m.%Y};" + f"{o:.2f};{h:.2f};{w:.2f};{c:.2f};".replace(".", ",") + f"{v:.0f}",
    )
    return Case("kurse.csv", text.encode("cp1252"), bars)


@case
def german_thousands() -> Case:
    bars = truth(start=15234.5)
    text = table(
        "Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen",
        bars,
        lambda t, o, h, w, c, v: ";".join(
            [
                f"{t:%Y-%m-%d}",
                *(f"{x:,.2f}".translate(EUROPE) for x in (o, h, w, c)),
                "1.234",
                f"{v:,.0f}".translate(EUROPE),
            ]
        ),
    )
    return Case("wkn_846900_historic.csv", text.encode(), bars, note="")


@case
def french_spaces() -> Case:
    bars = truth(start=7234.5)
    text = table(
        "Date\tOuverture\tPlus haut\tPlus bas\tClôture",
        bars,
        lambda t, o, h, w, c, v: "\t".join(
            [f"{t:%d/%m/%Y}", *(f"{x:,.2f}".replace(",", "\u202f").replace(".", ",") for x in (o, h, w, c))]
        ),
    )
    return Case("cac40.txt", text.encode(), bars, columns=("open", "high", "low", "close"))


@case
def metatrader4() -> Case:
    bars = truth(start=1.0843, digits=5, step=timedelta(hours=4))
    text = table("", bars, lambda t, o, h, w, c, v: f"{t:%Y.%m.%d},{t:%H:%M},{o:.5f},{h:.5f},{w:.5f},{c:.5f},{v:.0f}")
    return Case("EURUSD240.csv", text.replace("\n", "\r\n").encode(), bars, note="no header line")


@case
def metatrader5_utf16() -> Case:
    bars = truth(start=151.2, digits=3, step=timedelta(hours=1))
    text = table(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>",
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y.%m.%d}\t{t:%H:%M:%S}\t{o:.3f}\t{h:.3f}\t{w:.3f}\t{c:.3f}\t{v:.0f}\t{v:.0f}\t0",
    )
    return Case("USDJPY_H1.csv", b"\xff\xfe" + text.replace("\n", "\r\n").encode("utf-16-le"), bars)


@case
def metatrader5_daily() -> Case:
    bars = truth(start=1.0843, digits=5)
    text = table(
        "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>",
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y.%m.%d}\t{o:.5f}\t{h:.5f}\t{w:.5f}\t{c:.5f}\t{v:.0f}\t0\t2",
    )
    return Case("EURUSD_Daily.csv", text.encode(), bars, note="'<VOL>' is zero")


@case
def stooq() -> Case:
    bars = truth()
    text = table(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
        bars,
        lambda t, o, h, w, c, v: f"AAPL.US,D,{t:%Y%m%d},000000,{o},{h},{w},{c},{v:.0f},0",
    )
    return Case("aapl.us.txt", text.encode(), bars)


def _kline(stamp: int, bar: tuple[float, ...], close_stamp: int) -> str:
    o, h, w, c, v = bar
    return (
        f"{stamp},{o:.8f},{h:.8f},{w:.8f},{c:.8f},{v:.8f},{close_stamp},{v * c:.8f},1234,{v / 2:.8f},{v * c / 2:.8f},0"
    )


@case
def binance_klines_ms_zip() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows = []
    for t, *bar in bars.rows():
        stamp = int(t.timestamp() * 1000)
        rows.append(_kline(stamp, tuple(bar), stamp + 3_599_999))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("BTCUSDT-1h-2024-01.csv", "\n".join(rows) + "\n")
    return Case("BTCUSDT-1h-2024-01.zip", packed.getvalue(), bars, note="no header line")


@case
def binance_klines_us() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows = []
    for t, *bar in bars.rows():
        stamp = int(t.timestamp()) * 1_000_000
        rows.append(_kline(stamp, tuple(bar), stamp + 3_599_999_999))
    return Case("BTCUSDT-1h-2025-01.csv", lines(*rows), bars, note="no header line")


@case
def binance_api_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows: list[list[Any]] = []
    for t, o, h, w, c, v in bars.rows():
        stamp = int(t.timestamp() * 1000)
        values = [f"{x:.8f}" for x in (o, h, w, c, v)]
        rows.append([stamp, *values, stamp + 3_599_999, "1.0", 100, "0.5", "0.5", "0"])
    return Case("klines.json", json.dumps(rows).encode(), bars)


@case
def ccxt_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows = [[int(t.timestamp() * 1000), *bar] for t, *bar in bars.rows()]
    return Case("ohlcv.json", json.dumps(rows).encode(), bars)


@case
def polygon_json() -> Case:
    bars = truth()
    results = [
        {"v": v, "vw": c, "o": o, "c": c, "h": h, "l": w, "t": int(t.timestamp() * 1000), "n": 5}
        for t, o, h, w, c, v in bars.rows()
    ]
    answer = {
        "ticker": "AAPL",
        "queryCount": COUNT,
        "adjusted": True,
        "results": results,
        "status": "OK",
        "count": COUNT,
    }
    return Case("polygon.json", json.dumps(answer).encode(), bars)


@case
def finnhub_json() -> Case:
    bars = truth()
    answer = {
        "c": bars.close.tolist(),
        "h": bars.high.tolist(),
        "l": bars.low.tolist(),
        "o": bars.open.tolist(),
        "s": "ok",
        "t": [int(t.timestamp()) for t in bars.times],
        "v": bars.volume.tolist(),
    }
    return Case("finnhub.json", json.dumps(answer).encode(), bars)


@case
def yahoo_chart_json() -> Case:
    bars = truth()
    quote = {name: getattr(bars, name).tolist() for name in ("open", "high", "low", "close", "volume")}
    result = {
        "meta": {"symbol": "AAPL", "currency": "USD"},
        "timestamp": [int(t.timestamp()) for t in bars.times],
        "indicators": {"quote": [quote], "adjclose": [{"adjclose": (bars.close * 0.98).tolist()}]},
    }
    return Case("chart.json", json.dumps({"chart": {"result": [result], "error": None}}).encode(), bars)


@case
def twelve_data_json() -> Case:
    bars = truth()
    values = [
        {
            "datetime": f"{t:%Y-%m-%d}",
            "open": f"{o}",
            "high": f"{h}",
            "low": f"{w}",
            "close": f"{c}",
            "volume": f"{v:.0f}",
        }
        for t, o, h, w, c, v in list(bars.rows())[::-1]
    ]
    answer = {"meta": {"symbol": "AAPL", "interval": "1day"}, "values": values, "status": "ok"}
    return Case("twelve.json", json.dumps(answer).encode(), bars, note="reversed")


@case
def tushare_json() -> Case:
    bars = truth()
    items = [["000001.SZ", f"{t:%Y%m%d}", o, h, w, c, v] for t, o, h, w, c, v in list(bars.rows())[::-1]]
    fields = ["ts_code", "trade_date", "open", "high", "low", "close", "vol"]
    answer = {"code": 0, "msg": None, "data": {"fields": fields, "items": items, "has_more": False}}
    return Case("tushare.json", json.dumps(answer).encode(), bars, note="reversed")


@case
def kraken_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows = [
        [int(t.timestamp()), f"{o}", f"{h}", f"{w}", f"{c}", f"{(h + w) / 2}", f"{v}", 7]
        for t, o, h, w, c, v in bars.rows()
    ]
    return Case("kraken.json", json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": 1}}).encode(), bars)


@case
def coinbase_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows = [[int(t.timestamp()), w, h, o, c, v] for t, o, h, w, c, v in list(bars.rows())[::-1]]
    return Case("candles.json", json.dumps(rows).encode(), bars, note="reversed")


@case
def cryptodatadownload() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    text = "https://www.CryptoDataDownload.com\n" + table(
        "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD",
        bars,
        lambda t, o, h, w, c, v: (
            f"{int(t.timestamp())},{t:%Y-%m-%d %H:%M:%S},BTC/USD,{o},{h},{w},{c},{v / 1e4:.8f},{v:.2f}"
        ),
        newest_first=True,
    )
    return Case(
        "Bitstamp_BTCUSD_1h.csv", text.encode(), bars, columns=("open", "high", "low", "close"), note="Volume BTC"
    )


@case
def fred() -> Case:
    bars = truth(start=4.2, digits=2)
    rows = [f"{t:%Y-%m-%d},{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    rows.insert(30, "2024-02-24,.")
    return Case("DGS10.csv", lines("observation_date,DGS10", *rows), bars, columns=("close",), note="DGS10")


@case
def bloomberg() -> Case:
    bars = truth()
    text = table(
        "Security,IBM US Equity\nStart Date,01/15/2024\n\nDate,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST,PX_VOLUME",
        bars,
        lambda t, o, h, w, c, v: f"{t:%m/%d/%Y},{o},{h},{w},{c},{v:.0f}",
    )
    return Case("bloomberg.csv", text.encode(), bars, note="before the header skipped")


@case
def dukascopy() -> Case:
    bars = truth(start=1.0843, digits=5, step=timedelta(hours=1))
    text = table(
        "Gmt time,Open,High,Low,Close,Volume",
        bars,
        lambda t, o, h, w, c, v: f"{t:%d.%m.%Y %H:%M:%S}.000,{o},{h},{w},{c},{v:.4f}",
    )
    return Case("EURUSD_Candlestick_1_Hour_BID.csv", text.encode(), bars)


@case
def histdata() -> Case:
    bars = replace(truth(start=1.0843, digits=6, step=timedelta(minutes=1)), volume=np.zeros(COUNT))
    text = table("", bars, lambda t, o, h, w, c, v: f"{t:%Y%m%d %H%M%S};{o:.6f};{h:.6f};{w:.6f};{c:.6f};0")
    return Case("DAT_ASCII_EURUSD_M1_2024.csv", text.encode(), bars)


@case
def tradingview_gzip() -> Case:
    bars = truth()
    text = table(
        "time,open,high,low,close,Volume,Volume MA",
        bars,
        lambda t, o, h, w, c, v: f"{int(t.timestamp())},{o},{h},{w},{c},{v:.0f},NaN",
    )
    return Case("NASDAQ_AAPL, 1D.csv.gz", gzip.compress(text.encode()), bars)


@case
def interactive_brokers() -> Case:
    bars = truth(step=timedelta(minutes=5))
    text = table(
        ",date,open,high,low,close,volume,average,barCount",
        bars,
        lambda t, o, h, w, c, v: f"0,{t:%Y%m%d  %H:%M:%S},{o},{h},{w},{c},{v:.0f},{c},5",
    )
    return Case("ib.csv.bz2", bz2.compress(text.encode()), bars)


@case
def pandas_index() -> Case:
    bars = truth()
    text = table("", bars, lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},{o},{h},{w},{c},{v:.0f}")
    return Case("frame.csv", (",Open,High,Low,Close,Volume\n" + text).encode(), bars, note="is read as the time")


@case
def trailing_commas_and_comment() -> Case:
    bars = truth()
    text = "# source: desk, adjusted\n" + table(
        "Date,Time,Open,High,Low,Close,Volume,",
        bars,
        lambda t, o, h, w, c, v: f"{t:%m/%d/%Y},{t:%H:%M},{o},{h},{w},{c},{v:.0f},",
        tail=["", "Source: the desk"],
    )
    return Case("desk.csv", text.encode(), bars, note="after the data skipped")


@case
def broken_volume() -> Case:
    bars = truth()
    rows = [f"{t:%Y-%m-%d},{o},{h},{w},{c}," for t, o, h, w, c, v in bars.rows()]
    rows[5] = rows[5] + "n/a (est.)"
    return Case(
        "novolume.csv",
        lines("Date,Open,High,Low,Close,Volume", *rows),
        bars,
        columns=("open", "high", "low", "close"),
        note="'Volume' left out",
    )


@case
def month_names() -> Case:
    bars = truth(start=1234.5)
    text = table(
        "Date,Open,High,Low,Close*,Adj Close**,Volume",
        bars,
        lambda t, o, h, w, c, v: f'"{t:%b %d, %Y}","{o:,.2f}","{h:,.2f}","{w:,.2f}","{c:,.2f}","{c:,.2f}","{v:,.0f}"',
        newest_first=True,
    )
    return Case("copied.csv", text.encode(), bars, note="reversed")


@case
def huobi_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    data = [
        {"id": int(t.timestamp()), "open": o, "close": c, "low": w, "high": h, "amount": v / 1e4, "vol": v, "count": 7}
        for t, o, h, w, c, v in list(bars.rows())[::-1]
    ]
    answer = {"ch": "market.btcusdt.kline.60min", "status": "ok", "ts": 1704187800000, "data": data}
    return Case("huobi.json", json.dumps(answer).encode(), bars, note="column 'id' is read as the time")


@case
def kucoin_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    rows = [
        [f"{int(t.timestamp())}", *(f"{x}" for x in (o, c, h, w, v, v * c))]
        for t, o, h, w, c, v in list(bars.rows())[::-1]
    ]
    return Case("kucoin.json", json.dumps({"code": "200000", "data": rows}).encode(), bars, note="reversed")


@case
def coingecko_json() -> Case:
    bars = truth(start=42283.58, step=timedelta(hours=1))
    stamps = [int(t.timestamp() * 1000) for t in bars.times]
    pairs = {
        name: [[stamp, value] for stamp, value in zip(stamps, values.tolist(), strict=True)]
        for name, values in (("prices", bars.close), ("market_caps", bars.close * 19e6), ("total_volumes", bars.volume))
    }
    return Case("coingecko.json", json.dumps(pairs).encode(), bars, columns=("close",))


@case
def nasdaq_api_json() -> Case:
    bars = truth()
    rows = [
        {
            "date": f"{t:%m/%d/%Y}",
            "close": f"${c}",
            "volume": f"{v:,.0f}",
            "open": f"${o}",
            "high": f"${h}",
            "low": f"${w}",
        }
        for t, o, h, w, c, v in list(bars.rows())[::-1]
    ]
    table = {"headers": {"date": "Date", "close": "Close/Last"}, "rows": rows}
    answer = {"data": {"symbol": "AAPL", "totalRecords": 60, "tradesTable": table}, "status": {"rCode": 200}}
    return Case("nasdaq.json", json.dumps(answer).encode(), bars, note="reversed")


@case
def chinese_gbk() -> Case:
    bars = truth()
    text = table(
        "日期,股票代码,名称,收盘价,最高价,最低价,开盘价,成交量",
        bars,
        lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},'600519,贵州茅台,{c},{h},{w},{o},{v:.0f}",
        newest_first=True,
    )
    return Case("600519.csv", text.encode("gbk"), bars, note="encoding gb18030")


@case
def nse_india() -> Case:
    bars = truth(start=2345.6)
    text = table(
        '"Date ","series ","OPEN ","HIGH ","LOW ","PREV. CLOSE ","ltp ","close ","vwap ","52W H ","VOLUME ","VALUE "',
        bars,
        lambda t, o, h, w, c, v: (
            f'"{t:%d-%b-%Y}","EQ","{o:,.2f}","{h:,.2f}","{w:,.2f}","{o:,.2f}","{c:,.2f}","{c:,.2f}","{c:,.2f}","3,000.00",'
            f'"{v:,.0f}","{v * c:,.2f}"'
        ),
        newest_first=True,
    )
    return Case("Quote-Equity-RELIANCE-EQ.csv", b"\xef\xbb\xbf" + text.encode(), bars, note="reversed")


@case
def barchart() -> Case:
    bars = truth()
    text = table(
        "Symbol,Time,Open,High,Low,Last,Change,%Chg,Volume",
        bars,
        lambda t, o, h, w, c, v: f"AAPL,{t:%m/%d/%Y},{o},{h},{w},{c},0.5,0.30%,{v:.0f}",
        newest_first=True,
        tail=['"Downloaded from Barchart.com as of 04-05-2024 04:00pm CDT"'],
    )
    return Case("aapl_price-history.csv", text.encode(), bars, note="after the data skipped")


@case
def sierra_chart() -> Case:
    bars = truth(step=timedelta(minutes=1))
    text = table(
        "Date, Time, Open, High, Low, Last, Volume, NumberOfTrades, BidVolume, AskVolume",
        bars,
        lambda t, o, h, w, c, v: (
            f"{t.year}/{t.month}/{t.day}, {t:%H:%M:%S.000000}, {o}, {h}, {w}, {c}, {v:.0f}, 9, 4, 5"
        ),
    )
    return Case("ESH24.txt", text.encode(), bars)


@case
def kibot() -> Case:
    bars = truth(step=timedelta(minutes=5))
    text = table("", bars, lambda t, o, h, w, c, v: f"{t:%m/%d/%Y},{t:%H:%M},{o},{h},{w},{c},{v:.0f}")
    return Case("IBM.txt", text.encode(), bars, note="no header line")


@case
def polygon_flat_file() -> Case:
    bars = truth(step=timedelta(minutes=1))
    text = table(
        "ticker,volume,open,close,high,low,window_start,transactions",
        bars,
        lambda t, o, h, w, c, v: f"AAPL,{v:.0f},{o},{c},{h},{w},{int(t.timestamp())}000000000,5",
    )
    return Case("2024-01-15.csv.gz", gzip.compress(text.encode()), bars)


@case
def old_cryptodatadownload() -> Case:
    """Dates such as `2020-07-04 07-PM` beside epochs that change the unit within the file."""
    bars = truth(start=9283.58, step=timedelta(hours=1))
    stamps = iter([int(t.timestamp()) * (1000 if at > 30 else 1) for at, t in enumerate(bars.times)])
    text = table(
        "Unix Timestamp,Date,Symbol,Open,High,Low,Close,Volume",
        bars,
        lambda t, o, h, w, c, v: f"{next(stamps)},{t:%Y-%m-%d %I-%p},BTCUSD,{o},{h},{w},{c},{v}",
    )
    return Case("gemini_BTCUSD_1hr.csv", text.encode(), bars, note="change the unit within the file")


@case
def spreadsheet_serials() -> Case:
    bars = truth()
    days = [(t.replace(tzinfo=None) - datetime(1899, 12, 30)).days for t in bars.times]  # noqa: DTZ001
    rows = [f"{day};{c:.4f}".replace(".", ",") for day, c in zip(days, bars.close.tolist(), strict=True)]
    return Case(
        "serials.csv",
        lines("Datum;Kurs", *rows),
        bars,
        columns=("close",),
        refused="a serial date of a spreadsheet? give --date-format excel",
        options={"date_format": "excel"},
    )


@case
def minguo_years() -> Case:
    bars = truth()
    rows = [f"{t.year - 1911}/{t:%m/%d},{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    return Case(
        "twse.csv", lines("Date,Close", *rows), bars, columns=("close",), refused="row 2: '113/01/15' is not a date"
    )


@case
def ambiguous_dates() -> Case:
    full = truth()
    days = [datetime(2024, 1, day, tzinfo=UTC) for day in (2, 3, 4, 5, 8, 9, 10, 11, 12)]
    columns = (getattr(full, name)[: len(days)] for name in ("open", "high", "low", "close", "volume"))
    bars = Truth(days, *columns)
    rows = [f"{t:%d/%m/%Y},{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    return Case(
        "dates.csv",
        lines("Date,Close", *rows),
        bars,
        columns=("close",),
        refused="02 Jan 2024 (DMY) or 01 Feb 2024 (MDY), and no row decides; give --date-format DMY or MDY",
        options={"date_format": "DMY"},
    )


@case
def ambiguous_decimal() -> Case:
    bars = truth(start=1.234, digits=3)
    rows = [
        f"{t:%Y-%m-%d};{f'{c:.3f}'.replace('.', ',')}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)
    ]
    return Case(
        "ambiguous.csv",
        lines("Date;Close", *rows),
        bars,
        columns=("close",),
        refused="--decimal",
        options={"decimal": ","},
    )


@case
def duplicated() -> Case:
    bars = truth()
    rows = [f"{t:%Y-%m-%d},{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    rows.insert(31, rows[30])
    return Case(
        "twice.csv",
        lines("Date,Close", *rows),
        bars,
        columns=("close",),
        refused="row 33: 2024-02-26 is the time of row 32, too",
    )


@case
def unsorted() -> Case:
    bars = truth()
    rows = [f"{t:%Y-%m-%d},{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    rows[10], rows[11] = rows[11], rows[10]
    return Case("unsorted.csv", lines("Date,Close", *rows), bars, columns=("close",), refused="row 13: ")


@case
def joined_files() -> Case:
    bars = truth()
    rows = [f"{t:%Y-%m-%d},{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    rows.insert(30, "Date,Close")
    return Case("joined.csv", lines("Date,Close", *rows), bars, columns=("close",), refused="row 32 is a second header")


@case
def cut_off() -> Case:
    bars = truth()
    text = table("Date,Open,High,Low,Close", bars, lambda t, o, h, w, c, v: f"{t:%Y-%m-%d},{o},{h},{w},{c}")
    return Case("cut.csv", text.encode() + b"2024-06-11,187", bars, refused="row 62 has 2 fields")


@case
def bid_and_ask() -> Case:
    bars = truth(start=1.0843, digits=5)
    rows = [f"{t:%Y-%m-%d},{c},{c + 0.0001:.5f}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    return Case(
        "quotes.csv",
        lines("Date,Bid,Ask", *rows),
        bars,
        columns=("close",),
        refused="there are date, bid, ask",
        options={"columns": {"close": "Bid"}},
    )


@case
def several_symbols() -> Case:
    bars = truth()
    other = truth(seed=8)
    rows = [f"{t:%Y-%m-%d},AAPL,{c}" for t, c in zip(bars.times, bars.close.tolist(), strict=True)]
    rows += [f"{t:%Y-%m-%d},MSFT,{c}" for t, c in zip(other.times, other.close.tolist(), strict=True)]
    return Case(
        "long.csv",
        lines("date,symbol,close", *rows),
        bars,
        columns=("close",),
        refused="2 instruments (AAPL, MSFT)",
        options={"symbol": "AAPL"},
    )


@case
def login_page() -> Case:
    return Case("download.csv", b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n", truth(), refused="HTML")


@case
def workbook() -> Case:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return Case("prices.xlsx", packed.getvalue(), truth(), refused="Excel workbook")


def parquet() -> Case:
    import polars

    bars = truth()
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    packed = io.BytesIO()
    polars.DataFrame({"date": [t.replace(tzinfo=None) for t in bars.times], **columns}).write_parquet(packed)
    return Case("bars.parquet", packed.getvalue(), bars)


CASES.append(parquet)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for made in CASES:
        found = made()
        (folder / found.name).write_bytes(found.data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
