"""What a job may weigh on the platform, whose limits depend on how the job came.

Sizes are of JSON in UTF-8, and a MB is a million bytes: the stricter reading of the platform's documentation.
Limits of the contract's messages are the contract's.
"""

from typing import Any

import orjson
from google.rpc import code_pb2

from market_inference.contract.errors import InvalidRequestError, RequestTooLargeError, ServiceError, Violation

RUN_BYTES = 10_000_000
RUNSYNC_BYTES = 20_000_000
CHUNK_BYTES = 1_000_000
# What the SDK and the platform write around a result.
_ENVELOPE_BYTES = 4096


class OutputTooLargeError(ServiceError):
    """The answer was computed, but the platform would lose it."""

    code = code_pb2.OUT_OF_RANGE
    reason = "OUTPUT_TOO_LARGE"


def of_job(job_id: str) -> int:
    """The byte limit of a job, by its id: the platform marks those of /runsync with `sync-`."""
    return RUNSYNC_BYTES if job_id.startswith("sync-") else RUN_BYTES


def check_input(job_id: str, given: Any) -> None:
    """Raises RequestTooLargeError, or InvalidRequestError for what is no JSON."""
    try:
        size = len(orjson.dumps(given))
    except TypeError as error:
        raise InvalidRequestError(
            [Violation("", "the input holds an integer beyond 64 bits or half a surrogate pair")]
        ) from error
    limit = of_job(job_id)
    if size > limit:
        raise RequestTooLargeError(limit, size)


def check_output(job_id: str, result: Any) -> None:
    """A whole result. Raises OutputTooLargeError."""
    check_total(job_id, posted_bytes(result))


def check_total(job_id: str, size: int) -> None:
    """All that a job's result weighs together. Raises OutputTooLargeError."""
    _check(size, of_job(job_id), "ask for fewer items, for `last` values only, or stream them (docs/runpod.md)")


def check_chunk(result: Any) -> int:
    """One streamed result: its bytes. Raises OutputTooLargeError."""
    size = posted_bytes(result)
    _check(size, CHUNK_BYTES, "ask for fewer quantiles, steps or indicators")
    return size


def posted_bytes(result: Any) -> int:
    """At least as many bytes as the SDK will post for a result, and hardly more.

    It writes with json.dumps, which puts a space after each comma and colon, and writes 1e-05 for 1e-5; counting them
    costs a hundredth of writing it twice.
    """
    body = orjson.dumps(result)
    return len(body) + sum(body.count(character) for character in (b",", b":", b"e"))


def _check(size: int, limit: int, advice: str) -> None:
    if size + _ENVELOPE_BYTES > limit:
        raise OutputTooLargeError(f"the answer is too large (max {limit} bytes, got {size}): {advice}")
