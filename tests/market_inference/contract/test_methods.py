"""The table of RPCs, and the twins of requests and answers."""

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from market_inference.contract import methods
from market_inference.contract.generated import answers_pb2, inference_pb2, requests_pb2

TWINS = {**answers_pb2.DESCRIPTOR.message_types_by_name, **requests_pb2.DESCRIPTOR.message_types_by_name}
PUBLIC = inference_pb2.DESCRIPTOR.message_types_by_name


def _public(twin: str) -> list[str]:
    """The public messages of a twin's name: PredictRequest of PredictColumns, Series of SeriesColumns."""
    name = twin.removesuffix("Columns").removesuffix("Answer")
    ending = "Request" if twin.endswith("Columns") else "Response"
    return [one for one in (name, name + ending) if one in PUBLIC]


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_has_the_wire_fields_of_its_public_message(twin):
    (public,) = _public(twin)
    ours, theirs = TWINS[twin].fields_by_number, PUBLIC[public].fields_by_number
    assert {n: f.name for n, f in ours.items()} == {n: f.name for n, f in theirs.items()}
    for number, field in ours.items():
        assert _wire_form(field) == _wire_form(theirs[number]), field.full_name


def _wire_form(field: FieldDescriptor) -> str:
    """The field's form on the wire: packed numbers of eight bytes, messages and bytes are all length-delimited."""
    packed = field.is_repeated and field.type in {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_SFIXED64}
    if packed or field.type in {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES}:
        return "length-delimited"
    return f"{field.type} {field.is_repeated}"


def test_arrays_written_through_a_twin_are_read_as_numbers():
    point = np.array([1.5, -0.0, np.nan, np.inf])
    raw = answers_pb2.ForecastAnswer(point=point.tobytes(), gate=0.5).SerializeToString()
    forecast = inference_pb2.Forecast.FromString(raw)
    np.testing.assert_array_equal(np.asarray(forecast.point), point)
    assert forecast.gate == 0.5
    assert forecast.SerializeToString() == raw


def test_every_method_has_a_scope_and_a_size_limit():
    for method in methods.METHODS.values():
        assert method.scope
        assert 0 < method.max_request_bytes <= methods.MAX_REQUEST_BYTES


def test_every_rpc_has_a_row_with_units_and_the_size_of_its_answer():
    assert set(methods.METHODS) == set(methods.SERVICE.methods_by_name)
    assert all(callable(method.units) and callable(method.answer_bytes) for method in methods.METHODS.values())


@pytest.mark.parametrize(
    ("name", "field", "items", "missing"),
    [
        ("Nothing", "predict", ("", ""), "Nothing"),
        ("Predict", "nothing", ("", ""), "Envelope has no field 'nothing'"),
        ("Predict", "predict", ("nothing", "forecasts"), "PredictRequest has no field 'nothing'"),
        ("Predict", "predict", ("series", "nothing"), "PredictResponse has no field 'nothing'"),
    ],
)
def test_a_row_that_names_what_the_contract_does_not_have_fails(name, field, items, missing):
    with pytest.raises(KeyError, match=missing):
        methods._row(name, field, len, len, items=items)


def test_the_lists_of_items_are_those_that_the_contract_marks():
    assert {method.name: method.lists for method in methods.METHODS.values() if method.lists} == {
        "Predict": (("", "series"),),
        "AnalyzeSentiment": (("", "texts"),),
        "ComputeIndicators": (("", "panels"),),
        "Analyze": (("predict", "series"), ("sentiment", "texts"), ("indicators", "panels")),
    }
    assert all(("", method.items) in method.lists for method in methods.METHODS.values() if method.items)


def test_the_fields_of_the_rows_are_those_of_stream_requests_and_results():
    fields = set(inference_pb2.StreamResult.DESCRIPTOR.fields_by_name) - {"id", "error"}
    assert set(methods.BY_STREAM_FIELD) == fields
