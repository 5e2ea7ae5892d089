"""Requests joined from arrays are the messages that protobuf writes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from market_inference.client import encode
from market_inference.client.inputs.items import Panel, Series, Source
from market_inference.contract.encoding import twins
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import ArgumentError

SYMBOLS = st.text(max_size=20).filter(lambda text: text.isprintable())
COLUMNS = arrays.arrays(np.float64, st.integers(0, 300), elements=st.floats(width=64))


@given(st.lists(st.tuples(SYMBOLS, COLUMNS), max_size=5), st.integers(0, 365))
def test_series_are_written_as_protobuf_writes_them(items, horizon):
    rest = pb.PredictRequest(horizon=horizon, quantiles=[0.1, 0.9], model="auto")
    raw = encode.predict([Series(values, Source(symbol)) for symbol, values in items], rest.SerializeToString())
    message = pb.PredictRequest()
    message.CopyFrom(rest)
    message.series.extend([pb.Series(symbol=symbol, values=values) for symbol, values in items])
    assert raw == message.SerializeToString()
    assert twins.read(pb.PredictRequest, raw) is not None


@given(st.lists(st.tuples(SYMBOLS, COLUMNS, COLUMNS), max_size=5))
def test_panels_are_written_as_protobuf_writes_them(items):
    rest = pb.ComputeIndicatorsRequest(indicators=[pb.IndicatorSpec(name="SMA", params={"timeperiod": 5}, last=2)])
    panels = [Panel({"high": high, "close": close}, None, Source(symbol)) for symbol, high, close in items]
    message = pb.ComputeIndicatorsRequest()
    message.CopyFrom(rest)
    message.panels.extend([pb.Panel(symbol=symbol, high=high, close=close) for symbol, high, close in items])
    assert encode.indicators(panels, rest.SerializeToString()) == message.SerializeToString()


@pytest.mark.parametrize(
    "values",
    [np.arange(20.0)[::2], np.arange(10.0).astype(">f8"), np.asfortranarray(np.arange(20.0).reshape(10, 2))[:, 1]],
    ids=["strided", "big-endian", "a column"],
)
def test_arrays_in_any_layout_of_memory_are_sent_by_value(values):
    message = pb.PredictRequest.FromString(encode.predict([Series(values, Source())], b""))
    np.testing.assert_array_equal(message.series[0].values, values)


def test_a_symbol_that_utf8_cannot_hold_is_refused():
    with pytest.raises(ArgumentError, match=r"symbol.*surrogate"):
        encode.predict([Series(np.ones(3), Source("\ud800"))], b"")
