"""A request's bytes, checked: quickly where everything is in order, closely where it is not.

Owns the order of the checks of one request; those that travel together are checked together by joint.py. The rules are
the contract's; what a broken one is called is market_inference/contract/validation/explain.py's.
"""

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message

from market_inference.contract.encoding import twins
from market_inference.contract.errors import InvalidRequestError, RequestTooLargeError, Violation
from market_inference.contract.methods import Method
from market_inference.contract.validation import bounds, explain
from market_inference.contract.validation.fast import conforms

# What so few bytes can hold is cheap to make, however many elements they claim to be; above it they are counted first.
SMALL_BYTES = 64 << 10


class Checked(NamedTuple):
    """A request that obeys the contract.

    `raw` are its bytes for the replica, `refused` the items that are left out.
    """

    method: Method
    raw: bytes
    refused: Sequence[explain.Refusal] = ()

    @property
    def message(self) -> Message:
        """The request through its twin."""
        kind = self.method.request
        return twins.TWINS.get(kind, kind).FromString(self.raw)


def check(method: Method, raw: bytes) -> Checked:
    """Raises RequestTooLargeError or InvalidRequestError."""
    if len(raw) > method.max_request_bytes:
        raise RequestTooLargeError(method.max_request_bytes, len(raw))
    kind = method.request
    if len(raw) > SMALL_BYTES:
        bounds.check(raw, kind.DESCRIPTOR)
    if conforms(kind, raw):
        return Checked(method, raw)
    return _closely(method, raw)


def _closely(method: Method, raw: bytes) -> Checked:
    bounds.check(raw, method.request.DESCRIPTOR)
    try:
        message = method.request.FromString(raw)
    except DecodeError as error:
        name = method.request.DESCRIPTOR.name
        raise InvalidRequestError([Violation("", f"the bytes are not a {name} message", "decode")]) from error
    refused = explain.check(message)
    return Checked(method, twins.rewrite(message), refused=refused)
