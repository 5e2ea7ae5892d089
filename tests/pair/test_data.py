"""Data as people have them, through the client library and the command line, by the right values."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib
from click.testing import CliRunner

import market_inference
from market_inference import errors
from market_inference.cli.main import main

DAYS = pd.bdate_range("2026-01-01", periods=60)
RISING = np.arange(100.0, 160.0)


@pytest.fixture
def client(running):
    with market_inference.Client(running.target, api_key=running.key) as made:
        yield made


@pytest.fixture
def frame(market):
    return pd.DataFrame(market, index=pd.bdate_range("2020-01-01", periods=len(market["close"])))


@pytest.mark.parametrize(
    "bars",
    [
        pd.DataFrame({"Close": RISING}, index=DAYS)[::-1],
        pd.DataFrame({"Date": DAYS.strftime("%m/%d/%Y"), "Close": RISING})[::-1],
        pl.DataFrame({"Date": DAYS.to_numpy(), "Close": RISING}).reverse(),
        {"timestamp": (DAYS.astype("int64") // 10**6).tolist()[::-1], "close": RISING[::-1]},
    ],
    ids=["index", "texts", "polars", "epochs"],
)
def test_rising_closes_written_newest_first_have_an_rsi_of_100(client, bars):
    with pytest.warns(errors.InputWarning, match="newest first"):
        assert client.indicators(bars, "RSI", last=1)["RSI"] == [100]
    closes = bars["Close"] if "Close" in getattr(bars, "columns", ()) else bars["close"]
    if isinstance(closes, pd.Series) and isinstance(closes.index, pd.DatetimeIndex):
        with pytest.warns(errors.InputWarning, match="newest first"):
            assert client.predict(closes, 1, quantiles=[0.5]).point[0] >= 150


def test_yfinance_s_frame_is_read_by_ticker(client, frame):
    both = pd.concat({"AAPL": frame, "MSFT": frame * 2}, axis=1).rename(columns=str.title, level=1).swaplevel(axis=1)
    found = client.indicators(both, ["RSI", "ATR"])
    assert found.symbols == ("AAPL", "MSFT")
    expected = talib.ATR(*(frame[name].to_numpy() * 2 for name in ("high", "low", "close")))
    np.testing.assert_allclose(found["MSFT"]["ATR"], expected, rtol=1e-9)
    assert list(found["AAPL"].index) == list(frame.index)
    closes = client.predict(both["Close"], 1, quantiles=[0.5])
    assert closes.symbols == ("AAPL", "MSFT")


def test_a_long_frame_has_indicators_of_each_ticker(client, frame):
    long = pd.concat([frame.assign(ticker="A"), frame.assign(ticker="B", close=frame.close[::-1].to_numpy())])
    found = client.indicators(long.rename_axis("date").reset_index(), "RSI")
    np.testing.assert_allclose(found["A"]["RSI"], talib.RSI(frame.close.to_numpy()), rtol=1e-9)
    np.testing.assert_allclose(found["B"]["RSI"], talib.RSI(frame.close.to_numpy()[::-1]), rtol=1e-9)
    with pytest.raises(errors.ArgumentError, match="have the same time"):
        client.indicators(long.drop(columns="ticker").sort_index(), "RSI")


def test_a_high_one_ulp_below_the_close_troubles_no_indicator_that_reads_only_the_close(client, frame):
    broken = frame.copy()
    broken.loc[broken.index[5], "high"] = frame.close.iloc[5] * 0.9
    expected = talib.RSI(frame.close.to_numpy())
    np.testing.assert_allclose(client.indicators(broken, "RSI")["RSI"], expected, rtol=1e-9)
    with pytest.raises(errors.InvalidRequestError, match="high"):
        client.indicators(broken, "ATR")


def test_rows_of_an_exchange_are_bars(client, market):
    rows = [
        [1_700_000_000_000 + 60_000 * at, *bar]
        for at, bar in enumerate(zip(*(market[name] for name in market), strict=True))
    ]
    assert list(market) == ["open", "high", "low", "close", "volume"]
    found = client.indicators(rows, ["RSI", "OBV"])
    np.testing.assert_allclose(found["RSI"], talib.RSI(market["close"]), rtol=1e-9)
    np.testing.assert_allclose(found["OBV"], talib.OBV(market["close"], market["volume"]), rtol=1e-9)


def test_masked_values_are_never_forecast(client, market):
    masked = np.ma.array(market["close"].copy(), mask=np.arange(len(market["close"])) == 7)
    masked.data[7] = -9999
    with pytest.raises(errors.InvalidRequestError, match=r"finite.*row 7 without a value: fill"):
        client.predict(masked, 1)


def test_a_column_is_one_series_whatever_its_shape(client, market):
    closes = market["close"]
    column, flat = client.predict(closes[:, None], 2), client.predict(closes, 2)
    np.testing.assert_array_equal(column.quantiles, flat.quantiles)


def test_one_of_many_that_is_refused_keeps_its_symbol_and_its_own_error(client, market):
    found = client.predict({"AAPL": market["close"][:60], "NEWIPO": market["close"][:5]}, 1)
    assert found.symbols == ("AAPL", "NEWIPO")
    with pytest.raises(errors.InvalidRequestError, match=r"NEWIPO: series\[1\]\.values"):
        found["NEWIPO"]
    assert [symbol for symbol, answer in found.items() if isinstance(answer, errors.MarketInferenceError)] == ["NEWIPO"]


def test_256_series_of_10_000_points_are_answered(client):
    long = np.cumsum(np.random.default_rng(5).normal(0, 1, 10_000)) + 1000
    found = client.predict([long] * 256, 1, quantiles=[0.5], timeout=100)
    assert (len(found), found.errors) == (256, {})


@pytest.mark.parametrize("form", ["rows", "mappings", "named tuples", "closes with times"])
def test_a_session_takes_bars_as_people_have_them(client, frame, form):
    history, live = frame.iloc[:1000], frame.iloc[1000:1010]
    columns = ["high", "low", "close"]
    with client.watch("A", history, indicators=["RSI", "ATR"] if form != "closes with times" else ["RSI"]) as session:
        for at, (day, bar) in enumerate(live.iterrows()):
            if form == "rows":
                session.append(bar)
            elif form == "mappings":
                session.append({**bar[columns], "time": day.isoformat()})
            elif form == "named tuples":
                session.append(next(live.iloc[at:].itertuples()))
            else:
                session.append(bar.close, time=day)
            update = next(session)
            assert pd.Timestamp(update.time) == day
        expected = talib.RSI(frame.close.to_numpy()[:1010])[-1]
        assert update["RSI"] == pytest.approx(expected, rel=1e-9)
        # The history's index orders the bars: a bar from before its end is refused, under its own time.
        session.append(live.iloc[0] if form != "closes with times" else live.close.iloc[0], time=history.index[-2])
        refused = next(session)
    assert refused.error.reason == "BAR_OUT_OF_ORDER"
    assert refused.time == history.index[-2]
    with pytest.raises(errors.InvalidRequestError):
        refused["RSI"]


def test_a_wrong_name_of_an_update_says_which_there_are(client, market):
    with client.watch("A", market["close"], indicators=["RSI"]) as session:
        session.append(101.5)
        with pytest.raises(KeyError, match="'RSY'; there are RSI"):
            next(session)["RSY"]


def test_the_command_line_reads_newest_first_alike(running, tmp_path):
    rows = "\n".join(f"{day:%Y-%m-%d},{close}" for day, close in zip(DAYS[::-1], RISING[::-1], strict=True))
    (tmp_path / "AAPL.csv").write_text(f"Date,Close\n{rows}\n")
    environment = {"MARKET_INFERENCE_API_KEY": running.key}
    arguments = ["--csv", str(tmp_path / "AAPL.csv"), "--target", running.target, "--json"]
    done = CliRunner().invoke(main, ["indicators", "RSI", *arguments], env=environment)
    (found,) = json.loads(done.stdout)
    assert (found["indicators"], found["times"]) == ({"RSI": [100]}, ["2026-03-25"])
    assert "descend" in done.stderr
    done = CliRunner().invoke(main, ["predict", "--horizon", "1", *arguments], env=environment)
    (found,) = json.loads(done.stdout)
    assert found["times"] == ["2026-03-26"]
    assert found["point"][0] >= 150
