"""Degenerate series get, over real sockets and among other callers' series, the answers that each gets alone."""

from collections.abc import Sequence

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from market_inference.contract.generated import inference_pb2 as pb
from models.forecast.series import Array
from tests.models.forecast.degenerate import degenerate

CLOSE = 1e-9
STALE = [np.array([100.0] + [101.0] * 99), np.array([100.0] + [101.0] * 30)]


def request(*series: Array) -> pb.PredictRequest:
    return pb.PredictRequest(series=[pb.Series(values=values) for values in series], horizon=5)


def assert_same(found: pb.Forecast, expected: pb.Forecast) -> None:
    size = np.abs(expected.quantiles).max()
    np.testing.assert_allclose(found.quantiles, expected.quantiles, rtol=0, atol=CLOSE * size)
    np.testing.assert_allclose(found.point, expected.point, rtol=0, atol=CLOSE * size)
    np.testing.assert_allclose(found.gate, expected.gate, rtol=0, atol=CLOSE)
    assert (found.logs, found.context) == (expected.logs, expected.context)
    np.testing.assert_equal(found.coverage.measured, expected.coverage.measured)


@settings(max_examples=25)
@example(drawn=STALE)
@given(drawn=st.lists(degenerate(longest=200), min_size=2, max_size=6))
def test_a_forecast_is_the_same_alone_in_one_request_and_among_other_callers(running, drawn: Sequence[Array]) -> None:
    def ask(*series: Array) -> list[pb.Forecast]:
        answer = running.stub.Predict(request(*series), metadata=running.metadata, timeout=60)
        assert all(one.HasField("forecast") for one in answer.forecasts)
        return [one.forecast for one in answer.forecasts]

    alone = [ask(values)[0] for values in drawn]
    calls = [running.stub.Predict.future(request(v), metadata=running.metadata, timeout=60) for v in [*drawn, *drawn]]
    company = [call.result().forecasts[0].forecast for call in calls]
    for found, expected in zip([*ask(*drawn), *company], alone * 3, strict=True):
        assert_same(found, expected)
