"""The shape of a job's result: success or error."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.rpc import status_pb2

from market_inference.contract.json_form import mistakes

Result = dict[str, Any]


def success(output: Any, request_id: str) -> Result:
    return {"status": "success", "output": output, "request_id": request_id}


def failure(status: status_pb2.Status, request_id: str, names: Mapping[str, str]) -> Result:
    """An error result; `names` maps field paths of the contract to the names that the caller wrote."""
    return {
        "status": "error",
        "error": mistakes.text(status, names),
        "error_type": mistakes.error_type(status),
        "request_id": request_id,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
