"""A request is read through its twin only when the twin holds every byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.encoding import twins
from market_inference.contract.generated import inference_pb2 as pb

values = st.lists(st.floats(), max_size=10)
series = st.builds(pb.Series, symbol=st.text(max_size=5), values=values)
requests = st.builds(
    pb.PredictRequest, series=st.lists(series, max_size=3), horizon=st.integers(0, 9), quantiles=values, model=st.text()
)


@given(requests)
def test_a_twin_has_the_content_of_the_request(message):
    raw = message.SerializeToString()
    twin = twins.read(pb.PredictRequest, raw)
    assert twin is not None
    assert twin.SerializeToString() == raw
    for item, public in zip(twin.series, message.series, strict=True):
        np.testing.assert_array_equal(twins.array(item.values), public.values)


@given(requests, st.binary(max_size=20))
def test_bytes_that_a_twin_would_lose_are_not_read_through_it(message, more):
    raw = message.SerializeToString() + more
    twin = twins.read(pb.PredictRequest, raw)
    if twin is not None:
        assert pb.PredictRequest.FromString(twin.SerializeToString()) == pb.PredictRequest.FromString(raw)


@pytest.mark.parametrize(
    "raw", [b"\x0a\x02\x11", b"\x0a\x09\x11" + bytes(8), b"\x7a\x01x"], ids=["truncated", "unpacked", "unknown field"]
)
def test_other_encodings_are_left_to_the_parser(raw):
    assert twins.read(pb.PredictRequest, raw) is None


def test_a_rewritten_request_is_read_through_its_twin():
    unpacked = b"\x0a\x09\x11" + bytes(8)
    whole = twins.rewrite(pb.PredictRequest.FromString(unpacked))
    twin = twins.read(pb.PredictRequest, whole)
    assert twins.array(twin.series[0].values).tolist() == [0.0]


def test_a_column_is_not_copied_and_not_writable():
    column = np.arange(3.0).tobytes()
    array = twins.array(column)
    assert not array.flags.writeable
    assert array.base is not None
    with pytest.raises(ValueError, match="buffer size"):
        twins.array(column[:-1])
