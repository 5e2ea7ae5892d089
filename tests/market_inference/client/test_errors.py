"""Every error of the service has its type here."""

import copy
import pickle

import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from market_inference import errors
from market_inference.contract import errors as wire


def _kinds(of: type[wire.ServiceError]) -> set[type[wire.ServiceError]]:
    direct = set(of.__subclasses__())
    return direct.union(*(_kinds(kind) for kind in direct)) if direct else direct


KINDS = [
    (wire.InvalidRequestError([wire.Violation("horizon", "too far")]), errors.InvalidRequestError),
    (wire.RequestTooLargeError(10, 11), errors.InvalidRequestError),
    (wire.UnauthenticatedError("x"), errors.UnauthenticatedError),
    (wire.PermissionDeniedError("x"), errors.PermissionDeniedError),
    (wire.UnknownModelError("forecast", "x", []), errors.NotFoundError),
    (wire.OverloadedError("x", retry_after=1.5), errors.OverloadedError),
    (wire.DeadlineExceededError("x"), errors.DeadlineExceededError),
    (wire.CallCancelledError("x"), errors.CancelledError),
    (wire.ServiceUnavailableError("x"), errors.UnavailableError),
    (wire.NotImplementedYetError("x"), errors.UnimplementedError),
    (wire.InternalError(), errors.InternalError),
]


@pytest.mark.parametrize(("sent", "kind"), KINDS, ids=lambda one: getattr(one, "reason", None))
def test_each_kind_arrives_as_its_own_type_with_all_it_carried(
    sent: wire.ServiceError, kind: type[errors.MarketInferenceError]
) -> None:
    error = errors.from_status(sent.status("r-1"))
    assert type(error) is kind
    assert (error.message, error.reason, error.request_id) == (sent.message, sent.reason, "r-1")
    assert error.code == wire.code_name(sent.code)
    assert error.retry_after == sent.retry_after


@pytest.mark.parametrize("code", sorted({kind.code for kind in _kinds(wire.ServiceError)} - {code_pb2.INTERNAL}))
def test_no_code_that_the_service_sends_is_taken_for_a_bug(code: int) -> None:
    assert not isinstance(errors.from_status(status_pb2.Status(code=code)), errors.InternalError)


def test_a_quota_is_told_apart_from_a_full_service() -> None:
    status = wire.OverloadedError("too many", retry_after=2.0).status("id")
    status.details.add().Pack(error_details_pb2.QuotaFailure())
    assert type(errors.from_status(status)) is errors.RateLimitedError


def test_a_negative_delay_is_none() -> None:
    status = wire.OverloadedError("too many", retry_after=-5.0).status("id")
    assert errors.from_status(status).retry_after == 0.0


@pytest.mark.parametrize(
    "error",
    [
        errors.from_status(KINDS[0][0].status("r-1")),
        errors.ArgumentError("horizon", "expected a whole number"),
        errors.ClosedError("closed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_travels_between_processes_whole(error: errors.MarketInferenceError) -> None:
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301  # made here
        assert type(copied) is type(error)
        assert (str(copied), copied.violations, copied.request_id) == (str(error), error.violations, error.request_id)
        assert copied.__notes__ == error.__notes__ if error.request_id else not hasattr(copied, "__notes__")


def test_an_unknown_code_and_an_unknown_detail_are_no_crash() -> None:
    status = status_pb2.Status(code=code_pb2.DATA_LOSS, message="?")
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/some.Other", value=b"\x01"))
    error = errors.from_status(status, "r-2")
    assert isinstance(error, errors.InternalError)
    assert (error.code, error.reason, error.request_id) == ("DATA_LOSS", "DATA_LOSS", "r-2")
