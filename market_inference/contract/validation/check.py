"""The check of one request in its bytes: size, list lengths, then the fast check, then the explaining check.

Owns the order of the checks. The rules are the contract's: fast.py decides whether a request obeys, explain.py names
the rules that a request breaks. The gateway checks a merged request once, see gateway/calls/merging.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from market_inference.contract.encoding import in_place, twins
from market_inference.contract.errors import AnswerTooLargeError, InvalidRequestError, RequestTooLargeError, Violation
from market_inference.contract.methods import Method
from market_inference.contract.validation import bounds, explain
from market_inference.contract.validation.fast import conforms

# A message of at most this size is cheap to parse, even with lists beyond their limits. The lists of a larger message
# are counted before the message is parsed.
SMALL_BYTES = 64 << 10


class Checked(NamedTuple):
    """A request that obeys the contract: `raw` are its bytes for the replica, `refused` the items that are left out."""

    method: Method
    raw: bytes
    refused: Sequence[explain.Refusal] = ()

    @property
    def message(self) -> Message:
        """The request, read through its twin."""
        return self.method.twin.FromString(self.raw)


def check(method: Method, raw: bytes) -> Checked:
    """Check a request. Raises RequestTooLargeError or InvalidRequestError."""
    return check_fast(method, raw, read(method, raw)) or check_slowly(method, raw)


def read(method: Method, raw: bytes) -> Any:
    """The request read through its twin, or in place: the one reading for size of the answer, check and units.

    None for bytes that the twin cannot read; check_slowly() refuses them. The limits of bytes and lists are checked
    before a large request is parsed, and before anything looks at the elements of a small one. Raises
    RequestTooLargeError or InvalidRequestError.
    """
    if len(raw) > method.max_request_bytes:
        raise RequestTooLargeError(method.max_request_bytes, len(raw))
    if len(raw) > SMALL_BYTES:
        bounds.check(raw, method.request.DESCRIPTOR)
        return in_place.read(method.request, raw) or twins.parse(method.request, raw)
    message = twins.parse(method.request, raw)
    if message is not None:
        bounds.check_parsed(raw, message, method.request.DESCRIPTOR)
    return message


def check_fast(method: Method, raw: bytes, message: Message | None, rest: bytes | None = None) -> Checked | None:
    """The request if the fast check accepts it; None when check_slowly() has to decide.

    `message`: from read(). `rest` are the bytes beside the items, where the request is split already (split_items).
    """
    return Checked(method, raw) if conforms(method.request, raw, message, rest) else None


def check_slowly(method: Method, raw: bytes) -> Checked:
    """The explaining check of a request that the fast check has not accepted, in milliseconds instead of microseconds.

    Raises InvalidRequestError or AnswerTooLargeError.
    """
    bounds.check(raw, method.request.DESCRIPTOR)
    try:
        message = method.request.FromString(raw)
    except DecodeError as error:
        name = method.request.DESCRIPTOR.name
        raise InvalidRequestError([Violation("", f"the bytes are not a {name} message", "decode")]) from error
    return check_message(method, message)


def check_message(method: Method, message: Message) -> Checked:
    """The explaining check of a public message, and the limit of its answer; refused items are cleared in `message`.

    Raises InvalidRequestError or AnswerTooLargeError.
    """
    refused = explain.check(message)
    checked = Checked(method, twins.rewrite(message), refused)
    if (limit := method.max_answer_bytes) and (answer_bytes := method.answer_bytes(checked.message)) > limit:
        raise AnswerTooLargeError(limit, answer_bytes)
    return checked
