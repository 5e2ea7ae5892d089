"""Length-delimited fields and varints agree with protobuf's own."""

import numpy as np
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.generated.inference_pb2 import Coverage


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_a_field_in_pieces_is_the_field_that_protobuf_writes(content):
    whole = b"".join(content)
    raw = b"".join(wireformat.pieces(1, *content))
    assert BytesValue.FromString(raw).value == whole
    assert not whole or raw == BytesValue(value=whole).SerializeToString()


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 1 << 21, 1 << 28])
@pytest.mark.parametrize("number", [1, 15, 16, 2047, 2048])
def test_a_header_is_a_tag_and_a_length(number, length):
    raw = wireformat.header(number, length)
    tag, at = wireformat.read_varint(raw, 0)
    assert (tag >> 3, tag & 7) == (number, 2)
    assert wireformat.read_varint(raw, at) == (length, len(raw))


@given(st.integers(1, 2**63 - 1))
def test_a_varint_is_read_as_protobuf_writes_it(value):
    raw = UInt64Value(value=value).SerializeToString()
    assert wireformat.read_varint(raw, 1) == (value, len(raw))


@given(st.lists(st.integers(0, 300) | st.integers(0, 2**32 - 1), max_size=9))
def test_a_packed_field_is_the_field_that_protobuf_writes(values):
    raw = b"".join(wireformat.pieces(5, twins.varints(np.array(values, dtype=np.int64))))
    assert not values or raw == Coverage(phase_origins=values).SerializeToString()
    assert list(Coverage.FromString(raw).phase_origins) == values


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\xff" * 9, b"\xff" * 11 + b"\x01"])
def test_a_varint_that_breaks_off_or_never_ends_is_refused(raw):
    with pytest.raises(IndexError):
        wireformat.read_varint(raw, 0)
