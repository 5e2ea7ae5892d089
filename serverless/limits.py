"""The platform's byte limits for a job's input and output; the limits of /run and /runsync differ.

Sizes are of JSON in UTF-8, and a MB is a million bytes: the stricter reading of the platform's documentation. Limits
of the messages stand in the contract.
"""

from typing import Any

import orjson
from google.rpc import code_pb2

from market_inference.contract.errors import InvalidRequestError, RequestTooLargeError, ServiceError, Violation

RUN_BYTES = 10_000_000
RUNSYNC_BYTES = 20_000_000
CHUNK_BYTES = 1_000_000
# Upper bound of the bytes that the SDK and the platform write around a result.
_ENVELOPE_BYTES = 4096


class OutputTooLargeError(ServiceError):
    """The answer was computed, but is larger than the platform's limit: the platform would drop the answer."""

    code = code_pb2.OUT_OF_RANGE
    reason = "OUTPUT_TOO_LARGE"


def of_job(job_id: str) -> int:
    """The byte limit of a job by the job id: ids of /runsync jobs begin with `sync-`."""
    return RUNSYNC_BYTES if job_id.startswith("sync-") else RUN_BYTES


def check_input(job_id: str, given: Any) -> None:
    """Raises RequestTooLargeError, or InvalidRequestError for input that JSON cannot hold."""
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
    """Check a whole result. Raises OutputTooLargeError."""
    check_total(job_id, posted_bytes(result))


def check_total(job_id: str, size: int) -> None:
    """Check the summed bytes of a job's outputs. Raises OutputTooLargeError."""
    _check(size, of_job(job_id), "ask for fewer items, for `last` values only, or stream them (docs/runpod.md)")


def check_chunk(result: Any) -> int:
    """Check one streamed result and return the number of bytes. Raises OutputTooLargeError."""
    size = posted_bytes(result)
    _check(size, CHUNK_BYTES, "ask for fewer quantiles, steps or indicators")
    return size


def posted_bytes(result: Any) -> int:
    """A close upper bound of the bytes that the SDK posts for a result.

    The SDK writes with json.dumps, with a space after each comma and colon, and 1e-05 for 1e-5. Counting these
    characters in orjson's output costs a hundredth of a second json.dumps.
    """
    body = orjson.dumps(result)
    return len(body) + sum(body.count(character) for character in (b",", b":", b"e"))


def _check(size: int, limit: int, advice: str) -> None:
    if size + _ENVELOPE_BYTES > limit:
        raise OutputTooLargeError(f"the answer is too large (max {limit} bytes, got {size}): {advice}")
