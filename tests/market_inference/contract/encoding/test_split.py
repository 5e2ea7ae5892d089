"""Split and join by hand agree with protobuf's parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.encoding import wireformat
from market_inference.contract.encoding.split import ITEMS, join_items, rest_of, split_items
from market_inference.contract.generated import inference_pb2 as pb

series = st.builds(pb.Series, symbol=st.text(max_size=8), values=st.lists(st.floats(), max_size=40))
messages = st.builds(pb.PredictRequest, series=st.lists(series, max_size=5), horizon=st.integers(0, 2**32 - 1))


@given(message=messages)
def test_a_message_is_split_into_items_and_the_rest(message):
    raw = message.SerializeToString()
    parts = split_items(pb.PredictRequest, raw)
    assert [bytes(item) for item in parts.items] == [item.SerializeToString() for item in message.series]
    assert parts.rest == pb.PredictRequest(horizon=message.horizon).SerializeToString()
    assert join_items(pb.PredictRequest, *parts) == raw
    assert rest_of(pb.PredictRequest, raw) == parts.rest
    most = len(message.series) - 1
    assert most < 0 or split_items(pb.PredictRequest, raw, most) is None
    assert split_items(pb.PredictRequest, raw, most + 1) == parts


@given(message=messages, cut=st.integers(1, 400))
def test_a_truncated_message_is_split_without_loss_or_not_at_all(message, cut):
    raw = message.SerializeToString()[:-cut]
    parts = split_items(pb.PredictRequest, raw)
    assert parts is None or join_items(pb.PredictRequest, *parts) == raw


@given(raw=st.binary(max_size=60))
def test_any_bytes_are_split_without_loss_or_not_at_all(raw):
    parts = split_items(pb.PredictRequest, b"\x0a" + raw)
    assert rest_of(pb.PredictRequest, b"\x0a" + raw) == (parts and parts.rest)
    if parts is not None:
        joined = join_items(pb.PredictRequest, *parts)
        # Lengths may be written longer than need be; nobody else's reading of them differs.
        assert len(joined) <= len(raw) + 1
        assert joined.endswith(parts.rest)


@pytest.mark.parametrize("kind", ITEMS)
def test_the_tag_of_items_is_one_byte(kind):
    assert kind.DESCRIPTOR.fields_by_name[ITEMS[kind]].number < 16


def test_a_varint_longer_than_protobufs_is_refused():
    """Adding up a longer varint would take quadratic time."""
    assert split_items(pb.PredictRequest, b"\x0a" + b"\xff" * 65_000) is None
    with pytest.raises(IndexError):
        wireformat.read_varint(b"\xff" * 10 + b"\x01", 0)
