"""The platform's byte limits for a job's input and output; the limits of /run and /runsync differ.

Sizes are of JSON in UTF-8, and a MB is a million bytes: the stricter reading of the platform's documentation. Limits
of the messages stand in the contract.
"""

import re
from typing import Any

import orjson
from google.rpc import code_pb2

from market_inference.contract.errors import InvalidRequestError, RequestTooLargeError, ServiceError, Violation

RUN_BYTES = 10_000_000
RUNSYNC_BYTES = 20_000_000
CHUNK_BYTES = 1_000_000
# Upper bound of the bytes that the SDK and the platform write around a result.
_ENVELOPE_BYTES = 4096
_MOST_DEPTH = 254  # of orjson
_MOST_PATH = 200
_FEWEST, _MOST = -(1 << 63), (1 << 64) - 1
_HALF_PAIR = re.compile("[\ud800-\udfff]")


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
        path, text = _unfit(given, 1) or (["input"], str(error))
        raise InvalidRequestError([Violation("".join(path).removeprefix(".")[:_MOST_PATH], text)]) from error
    limit = of_job(job_id)
    if size > limit:
        raise RequestTooLargeError(limit, size)


def _unfit(value: Any, depth: int) -> tuple[list[str], str] | None:
    """The path of the first value that orjson does not write, and the rule that the value breaks."""
    if isinstance(value, str):
        return ([], "must not hold half a surrogate pair") if _HALF_PAIR.search(value) else None
    if isinstance(value, int):
        return None if _FEWEST <= value <= _MOST else ([], "must be a whole number of 64 bits")
    if not isinstance(value, dict | list):
        return None
    if depth > _MOST_DEPTH:
        return [], f"must not be nested deeper than {_MOST_DEPTH} levels"
    for name, one in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(name, str) and _HALF_PAIR.search(name):
            return [], "must not hold half a surrogate pair in a name"
        if isinstance(one, float) or (isinstance(one, int) and _FEWEST <= one <= _MOST):
            continue  # millions of these: no call for each
        if found := _unfit(one, depth + 1):
            step = f".{name}" if isinstance(name, str) else f"[{name}]"
            return [step, *found[0]], found[1]
    return None


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
