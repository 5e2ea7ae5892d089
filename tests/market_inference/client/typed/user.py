"""A user's program for type checkers: test_types.py compares each revealed type with the comment beside it."""

from typing import reveal_type

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

import market_inference

client = market_inference.Client()
closes: list[float] = [1.0, 2.0]
array = np.array(closes)
frame = pd.DataFrame({"close": closes})
column: "pd.Series[float]" = frame["close"]
polars = pl.DataFrame({"close": closes})

reveal_type(client.predict(closes, 1))  # Forecast
reveal_type(client.predict(array, 1))  # Forecast
reveal_type(client.predict(column, 1))  # Forecast
reveal_type(client.predict(polars["close"], 1))  # Forecast
reveal_type(client.predict(frame, 1))  # ForecastAnswers
reveal_type(client.predict(polars, 1))  # ForecastAnswers
reveal_type(client.predict({"AAPL": closes}, 1))  # ForecastAnswers
reveal_type(client.predict({"AAPL": frame["close"]}, 1))  # ForecastAnswers
reveal_type(client.predict([closes, closes], 1))  # ForecastAnswers
reveal_type(client.predict([array, array], 1))  # ForecastAnswers
reveal_type(client.predict(closes, 1, covariates={"volume": array}, known_ahead=["volume"]))  # Forecast
reveal_type(client.predict(column, 1, covariates=frame))  # Forecast
reveal_type(client.predict(frame, 1, covariates={"volume": frame, "vix": column}, groups=True))  # ForecastAnswers
reveal_type(client.predict({"A": closes, "B": closes}, 1, groups={"A": "x", "B": "x"}))  # ForecastAnswers
reveal_type(client.predict([closes, closes], 1, covariates={"v": [array] * 2}, groups=["x", None]))  # ForecastAnswers
reveal_type(client.sentiment("up"))  # Sentiment
reveal_type(client.sentiment(["up"]))  # Answers[Sentiment]
reveal_type(client.sentiment({"AAPL": "up"}))  # Answers[Sentiment]
reveal_type(client.sentiment(frame["close"]))  # Answers[Sentiment]
reveal_type(client.indicators(frame, "RSI"))  # Indicators
reveal_type(client.indicators(polars, "RSI"))  # Indicators
reveal_type(client.indicators(closes, "RSI"))  # Indicators
reveal_type(client.indicators(frame["close"], "RSI"))  # Indicators
reveal_type(client.indicators({"close": closes}, ["RSI", ("SMA", {"timeperiod": 50})]))  # Indicators
reveal_type(client.indicators({"AAPL": frame}, "RSI"))  # IndicatorAnswers
reveal_type(client.indicators({"AAPL": {"close": closes}}, "RSI"))  # IndicatorAnswers
reveal_type(client.indicators([frame, frame], "RSI"))  # IndicatorAnswers
quantiles: NDArray[np.float64] = client.predict([array, array], 1).quantiles
column_of_all: NDArray[np.float64] = client.indicators([frame, frame], "RSI").column("RSI")
session = client.watch("AAPL", frame, times=frame.index, indicators=["RSI"])
session.append(frame.iloc[-1])
session.append({"close": 1.0, "time": "2026-01-01"})
session.append(101.5, time=pd.Timestamp("2026-01-01"))
for symbol, forecast in client.predict(frame, 1).items():
    print(symbol, forecast.point)  # noqa: T201
