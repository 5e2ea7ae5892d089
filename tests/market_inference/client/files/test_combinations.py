"""Any combination of delimiter, notation, dates, header, order, encoding and wrapping is read right, or refused."""

import csv
import gzip
import io
from datetime import datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market_inference.client.files import FileError, read_bars

NAMES = {
    "english": ("Date", "Open", "High", "Low", "Close", "Volume"),
    "german": ("Datum", "Eröffnung", "Hoch", "Tief", "Schlusskurs", "Volumen"),
    "brackets": ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"),
    "numbered": ("timestamp", "1. open", "2. high", "3. low", "4. close", "5. volume"),
    "letters": ("t", "o", "h", "l", "c", "v"),
}
STYLES = {
    "plain": lambda value, digits: f"{value:.{digits}f}",
    "english": lambda value, digits: f"{value:,.{digits}f}",
    "german": lambda value, digits: f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,")),
    "plain comma": lambda value, digits: f"{value:.{digits}f}".replace(".", ","),
    "french": lambda value, digits: f"{value:,.{digits}f}".replace(",", " ").replace(".", ","),
    "dollars": lambda value, digits: f"${value:,.{digits}f}",
    "euros": lambda value, digits: f"{value:.{digits}f} €".replace(".", ","),
}
DATES = (
    "%Y-%m-%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%Y%m%d",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%Y/%m/%d",
    "%Y-%m-%d %H:%M",
)


@st.composite
def files(draw):
    """(bytes, closes, times, whether a lone point can group thousands)."""
    count = draw(st.integers(4, 30))
    digits = draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scale = draw(st.sampled_from([1.1, 9.5, 187.0, 1234.5, 15234.5, 42_000.0]))
    close = np.round(scale * np.exp(np.cumsum(rng.normal(0, 0.02, count))), digits)
    high, low = np.round(close * 1.01 + 10.0**-digits, digits), np.round(close * 0.99 - 10.0**-digits, digits)
    volume = np.floor(rng.uniform(1, 1e7, count))
    form = draw(st.sampled_from(DATES))
    step = draw(st.integers(1, 9))
    start = datetime(2023, 1, 1) + timedelta(days=draw(st.integers(0, 700)))  # noqa: DTZ001
    days = [start + timedelta(days=step * at) for at in range(count)]
    style = STYLES[draw(st.sampled_from(sorted(STYLES)))]
    header = draw(st.sampled_from(sorted(NAMES)))
    order = draw(st.permutations(range(1, 6)))
    delimiter = draw(st.sampled_from(",;\t|"))
    quoting = csv.QUOTE_ALL if draw(st.booleans()) else csv.QUOTE_MINIMAL
    rows = []
    for day, *cells in zip(days, close, high, low, close, volume, strict=True):
        texts = [style(float(x), digits) for x in cells[:4]] + [style(float(cells[4]), 0)]
        rows.append([day.strftime(form), *(texts[at - 1] for at in order)])
    if draw(st.booleans()):
        rows.reverse()
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    if draw(st.booleans()):
        out.write("Historical data of ACME\n")
    writer.writerow([NAMES[header][0], *(NAMES[header][at] for at in order)])
    writer.writerows(rows)
    if draw(st.booleans()):
        out.write("Source: the vendor\n")
    data = out.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])))
    return gzip.compress(data) if draw(st.booleans()) else data, close, days


@given(files())
def test_any_combination_is_read_right_or_refused_with_the_option(made):
    data, close, days = made
    try:
        bars = read_bars(io.BytesIO(data))
    except FileError as refusal:
        assert "--decimal" in str(refusal) or "--date-format" in str(refusal)
        return
    np.testing.assert_array_equal(bars.times, np.array(days, dtype="datetime64[ns]"))
    np.testing.assert_allclose(bars["close"], close, rtol=1e-12)
