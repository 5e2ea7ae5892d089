"""Answers as frames: the caller's library, names and index; failed items stay visible."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from market_inference import Answers, Coverage, Forecast, Indicators, Sentiment
from market_inference.client.inputs.bars import panels
from market_inference.client.inputs.items import Source
from market_inference.client.inputs.series import series
from market_inference.client.inputs.texts import texts
from market_inference.errors import ArgumentError, InvalidRequestError

LEVELS = np.array([0.1, 0.5, 0.9])


def forecast(source=Source(), horizon=3):  # noqa: B008
    point = 100.0 + np.arange(horizon)
    paths = np.column_stack([point - 1, point, point + 1])
    return Forecast(
        source.symbol, point, paths, LEVELS, Coverage(0.8, 0.79, 40), 0.0, True, 60, "auto", "1", "r", source=source
    )


def closes(length=60, **index):
    return pd.Series(100 + np.sin(np.arange(float(length))), **index)


def test_a_forecast_of_a_pandas_series_continues_its_dates():
    given = closes(index=pd.bdate_range("2024-01-02", periods=60, name="Date"))
    (item,) = series(given).items
    found = forecast(item.source).to_frame()
    assert list(found.columns) == ["point", "q0.1", "q0.5", "q0.9"]
    expected = pd.bdate_range("2024-03-26", periods=3, name="Date")
    assert list(found.index) == list(expected)
    assert found.index.name == "Date"
    assert found.loc["2024-03-27", "q0.9"] == 102.0


def test_a_forecast_of_plain_values_has_steps():
    found = forecast().to_frame(library="pandas")
    assert found.index.name == "step"
    assert list(found.index) == [1, 2, 3]


def test_a_forecast_of_polars_is_polars_with_a_column_of_dates():
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 2, 29), eager=True)
    given = pl.DataFrame({"date": days, "close": np.linspace(1, 2, len(days))})
    (item,) = series(given).items
    found = forecast(item.source).to_frame()
    assert isinstance(found, pl.DataFrame)
    assert found.columns == ["date", "point", "q0.1", "q0.5", "q0.9"]
    assert str(found["date"][0])[:10] == "2024-03-01"


def test_a_long_frame_goes_in_and_comes_out_under_the_same_names():
    days = pd.date_range("2024-01-01", periods=40)
    given = pd.DataFrame({"unique_id": ["A"] * 40 + ["B"] * 40, "ds": [*days, *days], "y": np.linspace(1, 2, 80)})
    found = series(given)
    answers = Answers([forecast(item.source) for item in found.items], ("A", "B"))
    frame = answers.to_frame()
    assert list(frame.columns) == ["unique_id", "ds", "point", "q0.1", "q0.5", "q0.9"]
    assert frame["unique_id"].tolist() == ["A"] * 3 + ["B"] * 3
    assert frame["ds"].tolist()[:3] == list(pd.date_range("2024-02-10", periods=3))


def test_an_item_that_failed_keeps_a_row_with_its_error():
    error = InvalidRequestError("NEWIPO: too short (min 30, got 5)")
    frame = Answers([forecast(), error], ("AAPL", "NEWIPO")).to_frame(library="pandas")
    assert frame["symbol"].tolist() == ["AAPL"] * 3 + ["NEWIPO"]
    assert np.isnan(frame["point"].iloc[-1])
    assert "too short" in frame["error"].iloc[-1]
    assert frame["error"].iloc[:3].isna().all()


def test_forecasts_without_regular_dates_have_steps_in_every_row():
    dated = closes(index=pd.bdate_range("2024-01-02", periods=60))
    items = [*series(dated).items, *series(closes()).items]
    frame = Answers([forecast(item.source) for item in items]).to_frame(library="pandas")
    assert list(frame.columns)[:2] == ["item", "step"]
    assert frame["step"].tolist() == [1, 2, 3, 1, 2, 3]


def indicators(source, bars=60):
    return Indicators({"RSI": {"real": np.arange(float(bars))}, "MACD": {"macd": np.ones(bars)}}, source=source)


def test_indicators_lie_beside_the_bars_of_the_input():
    index = pd.bdate_range("2024-01-02", periods=60, name="Date")
    bars = pd.DataFrame({"High": 2.0, "Low": 1.0, "Close": 1.5}, index=index)
    (panel,) = panels(bars).items
    found = indicators(panel.source).to_frame()
    pd.testing.assert_index_equal(found.index, index)
    joined = bars.join(found)
    assert joined["RSI"].tolist() == list(range(60))


def test_indicators_of_the_newest_bars_have_their_dates():
    index = pd.bdate_range("2024-01-02", periods=60, name="Date")
    (panel,) = panels(pd.DataFrame({"close": np.ones(60)}, index=index)).items
    found = indicators(panel.source, bars=5).to_frame()
    assert list(found.index) == list(index[-5:])


def test_indicators_of_many_instruments_are_long():
    index = pd.date_range("2024-01-02", periods=60, name="Date")
    given = {name: pd.DataFrame({"close": np.ones(60)}, index=index) for name in ("A", "B")}
    found = panels(given)
    frame = Answers([indicators(item.source) for item in found.items], ("A", "B")).to_frame()
    assert list(frame.columns) == ["symbol", "Date", "RSI", "MACD"]
    assert len(frame) == 120
    assert frame["Date"].iloc[60] == index[0]


def sentiment(label="positive"):
    return Sentiment(label, 0.5, 0.1, 0.3, 0.6, 1, "minilm", "1", "r")


def test_sentiments_lie_beside_the_column_of_texts():
    headlines = pd.DataFrame({"headline": ["a", "b"]}, index=[7, 9])
    found = texts(headlines["headline"])
    frame = Answers([sentiment(), InvalidRequestError("too long")], source=found.source).to_frame()
    joined = headlines.join(frame)
    assert joined["label"].tolist()[0] == "positive"
    assert joined["error"].tolist()[1] == "too long"
    assert np.isnan(joined["score"].iloc[1])
    assert len(sentiment().to_frame(library="polars")) == 1


def test_another_library_is_refused():
    with pytest.raises(ArgumentError, match="pandas"):
        forecast().to_frame(library="excel")


def test_html_escapes_what_comes_from_data():
    source = Source(symbol="<script>alert(1)</script>")
    assert "<script>" not in forecast(source)._repr_html_()
    assert "<script>" not in Answers([forecast(source)], (source.symbol,))._repr_html_()
    assert "<script>" not in indicators(source)._repr_html_()


def test_html_shows_a_bounded_number_of_rows():
    assert forecast(horizon=365)._repr_html_().count("<tr>") == 13
    assert "and 353 more" in forecast(horizon=365)._repr_html_()


def test_a_plot_has_a_band_for_each_pair_of_levels_and_the_median():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    given = closes(index=pd.bdate_range("2024-01-02", periods=60, name="Date"))
    (item,) = series(given).items
    axes = forecast(item.source).plot(given)
    assert len(axes.collections) == 1
    assert len(axes.lines) == 2
    assert axes.lines[0].get_xdata()[-1] == given.index[-1].to_datetime64()
    pyplot.close(axes.figure)


def test_close_levels_have_columns_of_their_own():
    source, levels = Source(), np.array([0.1, 0.1000001, 0.9])
    frame = replace(forecast(source), levels=levels).to_frame()
    assert frame[["q0.1", "q0.1000001", "q0.9"]].iloc[0].tolist() == [99.0, 100.0, 101.0]
