"""A request that is read in place has the content of its twin, or is not read in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.encoding import in_place, twins, wireformat
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import requests_pb2
from tests.market_inference.contract.encoding.test_twins import requests, values

panels = st.builds(pb.Panel, symbol=st.text(max_size=5), close=values, high=values, volume=values)
panel_requests = st.builds(pb.ComputeIndicatorsRequest, panels=st.lists(panels, min_size=1, max_size=3))
with_series = requests.filter(lambda message: message.series)


@pytest.fixture(autouse=True, scope="module")
def large():
    """Every message is large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_place, "_LARGE_BYTES", 0)
        patch.setattr(in_place, "_LARGE_ITEM_BYTES", 0)
        yield


def same(found, twin, name: str) -> None:
    for item, other in zip(getattr(found, name), getattr(twin, name), strict=True):
        for field in other.DESCRIPTOR.fields:
            held = getattr(item, field.name)
            assert (bytes(held) if isinstance(held, memoryview) else held) == getattr(other, field.name)
    for field in twin.DESCRIPTOR.fields:
        if field.name != name:
            assert str(getattr(found, field.name)) == str(getattr(twin, field.name))  # NaN differs from NaN


@given(with_series)
def test_a_request_for_forecasts_is_read_as_its_twin(message):
    raw = message.SerializeToString()
    found = in_place.read(pb.PredictRequest, raw)
    assert found is not None
    same(found, twins.read(pb.PredictRequest, raw), "series")


@given(panel_requests)
def test_a_request_for_indicators_is_read_as_its_twin(message):
    message.indicators.add(name="RSI", params={"timeperiod": 3.0}, last=1)
    raw = message.SerializeToString()
    same(in_place.read(pb.ComputeIndicatorsRequest, raw), twins.read(pb.ComputeIndicatorsRequest, raw), "panels")


@given(with_series, st.data())
def test_bytes_that_the_twin_does_not_hold_are_not_read_in_place(message, data):
    raw = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
    found, twin = in_place.read(pb.PredictRequest, bytes(raw)), twins.read(pb.PredictRequest, bytes(raw))
    if found is not None:
        assert twin is not None
        same(found, twin, "series")


@pytest.mark.parametrize(
    "item",
    [
        b"\x12\x08" + bytes(8) + b"\x12\x08" + bytes(8),  # a column in two pieces
        b"\x12\x88\x00" + bytes(8),  # a length in more bytes than it needs
        b"\x12\x00",  # an empty column, which protobuf's writers leave out
        b"\x12\x08" + bytes(4),  # the bytes break off
        b"\x11" + bytes(8),  # an unpacked number
        b"\x12\x08" + bytes(8) + b"\xfa\x7f\x01a",  # an unknown field
        b"\x0a\x01\xff",  # a symbol that is no text
    ],
)
def test_an_item_that_is_written_otherwise_is_not_read_in_place(item):
    number = requests_pb2.SeriesColumns.DESCRIPTOR.fields_by_name["values"].number
    assert number == 2
    raw = b"\x0a" + bytes([len(item)]) + item
    assert in_place.read(pb.PredictRequest, raw) is None


def test_an_item_with_a_length_in_more_bytes_than_it_needs_is_not_read_in_place():
    item = pb.Series(values=[1.0]).SerializeToString()
    assert in_place.read(pb.PredictRequest, b"\x0a" + bytes([len(item)]) + item) is not None
    assert in_place.read(pb.PredictRequest, b"\x0a" + bytes([len(item) | 0x80, 0]) + item) is None


def test_an_item_of_many_fields_is_given_up_after_as_many_fields_as_its_type_has(monkeypatch):
    places, walked = wireformat.places, []

    def counted(*around):
        for place in places(*around):
            walked.append(place)
            yield place

    monkeypatch.setattr(wireformat, "places", counted)
    item = b"\x0a\x00" * 10_000
    raw = b"".join((wireformat.header(1, len(item)), item))
    assert in_place.read(pb.PredictRequest, raw) is None
    assert 0 < len(walked) <= len(pb.Series.DESCRIPTOR.fields) + 1


def test_texts_are_not_read_in_place():
    assert (
        in_place.read(pb.AnalyzeSentimentRequest, pb.AnalyzeSentimentRequest(texts=["a"]).SerializeToString()) is None
    )


def test_items_after_other_fields_are_not_read_in_place():
    item = pb.PredictRequest(series=[pb.Series(values=[1.0])]).SerializeToString()
    assert in_place.read(pb.PredictRequest, item + pb.PredictRequest(horizon=3).SerializeToString() + item) is None


def test_a_field_beside_the_items_can_be_set():
    found = in_place.read(pb.PredictRequest, pb.PredictRequest(series=[pb.Series(values=[1.0])]).SerializeToString())
    found.model = "another"
    assert (found.model, len(found.series)) == ("another", 1)


def test_a_column_becomes_an_array_that_every_library_takes():
    raw = pb.PredictRequest(series=[pb.Series(symbol="odd", values=[1.0, 2.0])]).SerializeToString()
    column = in_place.read(pb.PredictRequest, raw).series[0].values
    assert isinstance(column, memoryview)
    array = twins.array(column)
    assert array.flags.aligned
    np.testing.assert_array_equal(array, [1.0, 2.0])


def test_small_messages_and_messages_of_small_items_are_not_read_in_place(monkeypatch):
    monkeypatch.setattr(in_place, "_LARGE_BYTES", 100)
    monkeypatch.setattr(in_place, "_LARGE_ITEM_BYTES", 50)
    for count, size, large in ((1, 4, False), (1, 20, True), (8, 4, False), (8, 20, True)):
        raw = pb.PredictRequest(series=[pb.Series(values=np.ones(size))] * count).SerializeToString()
        assert (in_place.read(pb.PredictRequest, raw) is not None) == large
