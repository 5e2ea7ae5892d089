"""Columns of numbers into and out of messages."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.client import arrays
from market_inference.contract.generated import inference_pb2 as pb


@given(st.lists(st.floats(width=64), max_size=300))
def test_what_is_written_is_on_the_wire_what_protobuf_itself_writes(values: list[float]) -> None:
    series = pb.Series(symbol="A")
    arrays.write(series, "values", np.array(values, dtype=np.float64))
    assert series.SerializeToString() == pb.Series(symbol="A", values=values).SerializeToString()
    np.testing.assert_array_equal(arrays.read(series.values), np.array(values, dtype=np.float64))


@pytest.mark.parametrize("values", [np.arange(20.0)[::2], np.arange(10, dtype=">f8"), np.arange(10, dtype=np.float32)])
def test_strides_byte_order_and_width_do_not_matter(values: np.ndarray) -> None:
    series = pb.Series()
    arrays.write(series, "values", values)
    assert list(series.values) == [float(value) for value in values]


def test_writing_leaves_the_other_fields_alone() -> None:
    panel = pb.Panel(symbol="A", close=[1, 2])
    arrays.write(panel, "volume", np.array([3.0, math.inf]))
    assert (panel.symbol, list(panel.close), list(panel.volume)) == ("A", [1, 2], [3, math.inf])


def test_what_is_read_outlives_the_message_and_may_be_changed() -> None:
    series = pb.Series(values=[1, 2, 3])
    values = arrays.read(series.values)
    values[0] = 9
    assert list(series.values) == [1, 2, 3]
    del series
    assert values.tolist() == [9, 2, 3]
