"""Errors carry a code, a stable reason, the time to wait, and the request id."""

from urllib.parse import quote

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from market_inference.contract import errors

# gRPC's limit is 8,192 bytes for all trailers: those of the service's own take a few hundred.
TRAILERS_BYTES = 7600


def details(status: status_pb2.Status, kind: type) -> list:
    found = []
    for any_ in status.details:
        message = kind()
        if any_.Unpack(message):
            found.append(message)
    return found


def test_an_invalid_request_lists_every_violation_with_its_field():
    error = errors.InvalidRequestError([errors.Violation("horizon", "too far (max 365, got 366)", "uint32.lte")])
    status = error.status("r-1")
    assert status.code == code_pb2.INVALID_ARGUMENT
    (bad,) = details(status, error_details_pb2.BadRequest)
    assert (bad.field_violations[0].field, bad.field_violations[0].reason) == ("horizon", "uint32.lte")
    (request,) = details(status, error_details_pb2.RequestInfo)
    assert request.request_id == "r-1"
    assert errors.reason_of(status) == "INVALID_REQUEST"


def test_an_overload_carries_the_time_to_wait():
    (retry,) = details(errors.OverloadedError("full", retry_after=0.25).status("r-1"), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 250


def every_error() -> list[errors.ServiceError]:
    """An error of every class, made as the service makes it."""
    violations = [errors.Violation("horizon", "too far (max 365, got 366)", "uint32.lte")]
    special = {
        errors.RequestTooLargeError: errors.RequestTooLargeError(10, 11),
        errors.AnswerTooLargeError: errors.AnswerTooLargeError(10, 11),
        errors.UnknownModelError: errors.UnknownModelError("forecast", "oracle", ["auto"]),
        errors.QuotaExceededError: errors.QuotaExceededError("desk", "100 units", retry_after=60.0),
        errors.InternalError: errors.InternalError(),
        errors.RemoteError: errors.RemoteError(errors.OverloadedError("full", retry_after=1).status("elsewhere")),
    }
    found, kinds = [], [errors.ServiceError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__ != errors.__name__:
            continue
        made = special.get(kind)
        if made is None:
            made = kind(violations) if issubclass(kind, errors.InvalidRequestError) else kind("text", retry_after=0.5)
        found.append(made)
    return found


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_has_a_code_a_reason_the_domain_and_the_request_id(error):
    status = error.status("r-1")
    assert code_pb2.Code.Name(status.code) != "OK"
    assert status.message
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert info.reason == errors.reason_of(status)
    assert info.domain == errors.DOMAIN
    (request,) = details(status, error_details_pb2.RequestInfo)
    assert request.request_id == "r-1"


def test_reasons_are_unique():
    made = [error for error in every_error() if not isinstance(error, errors.RemoteError)]
    kinds = {type(error) for error in made} - {errors.InternalError}
    assert len({kind.reason for kind in kinds}) == len(kinds)


def test_a_remote_status_without_details_gets_them():
    bare = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="gone")
    status = errors.RemoteError(bare).status("r-2")
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("UNAVAILABLE", errors.DOMAIN)
    (request,) = details(status, error_details_pb2.RequestInfo)
    assert request.request_id == "r-2"


def test_a_code_without_a_name_is_unknown():
    status = status_pb2.Status(code=99, message="of a proxy")
    assert errors.RemoteError(status).status("r-1").details
    assert (errors.code_name(99), errors.reason_of(status)) == ("UNKNOWN", "UNKNOWN")


def test_a_remote_error_is_passed_on_unchanged():
    status = errors.UnknownModelError("forecast", "oracle", ["auto"]).status("r-2")
    assert errors.RemoteError(status).status("r-2") == status
    assert "oracle" in status.message
    assert "auto" in status.message


def test_a_remote_error_of_merged_requests_carries_the_request_id_of_every_call():
    error = errors.OverloadedError("full", retry_after=1)
    assert errors.RemoteError(error.status("first")).status("second") == error.status("second")


def test_every_error_has_a_serverless_form():
    known = {"validation", "runtime", "service_unavailable", "invalid_action", "internal_error"}
    assert set(errors.SERVERLESS_ERROR_TYPES.values()) <= known


def header_bytes(status: status_pb2.Status) -> int:
    """The size of an error's trailers: the message as a percent-encoded header, the details in base64."""
    encoded = quote(status.message, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    return len(encoded) + -(-4 * status.ByteSize() // 3)


def test_the_first_of_many_violations_are_described_and_the_others_counted():
    many = [
        errors.Violation(f"series[{i}].values", "too short (min 30, got 2)", "repeated.min_items") for i in range(999)
    ]
    status = errors.InvalidRequestError(many, more=1000).status("r-3")
    assert header_bytes(status) < TRAILERS_BYTES
    (bad,) = details(status, error_details_pb2.BadRequest)
    shown = len(bad.field_violations) - 1
    assert shown > 20
    assert bad.field_violations[-1].description == f"and {1999 - shown} more"


texts = st.text(st.sampled_from(["a", "%", "\n", "\x00", "é", "\U0001f600"]), max_size=20).map(lambda text: text * 500)


@example([errors.Violation("a" * 500, "a" * 500 * (place > 1), "string.max_len") for place in range(6)])
@given(st.lists(st.builds(errors.Violation, texts, texts, st.just("string.max_len")), min_size=1, max_size=20))
def test_every_error_fits_into_the_trailers(violations):
    assert header_bytes(errors.InvalidRequestError(violations).status("r" * 128)) < TRAILERS_BYTES


@given(texts)
def test_echoed_names_are_cut(name):
    for error in (
        errors.UnknownModelError("forecast", name, [name] * 50),
        errors.QuotaExceededError(name, "100 units a day", retry_after=1.0),
        errors.ServiceUnavailableError(name, retry_after=1.0),
    ):
        assert header_bytes(error.status("r" * 128)) < TRAILERS_BYTES


def test_a_short_text_is_not_cut():
    assert errors.OverloadedError("é" * 150).message == "é" * 150
