"""Names of the metadata that travel with a call, and what counts as a request id."""

import re
import uuid

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
REQUEST_ID = "x-request-id"
PRIORITY = "x-priority"
TRACEPARENT = "traceparent"
# In the trailers of calls of clients that have a limit: cost units left of the burst, and of the day (UTC).
RATE_REMAINING = "x-rate-remaining"
QUOTA_REMAINING = "x-quota-remaining"
STATUS_DETAILS = "grpc-status-details-bin"

_HARMLESS = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id(*candidates: object) -> str:
    """The first candidate that is 1 to 128 harmless characters, else a new UUID."""
    for candidate in candidates:
        if isinstance(candidate, str) and _HARMLESS.fullmatch(candidate):
            return candidate
    return str(uuid.uuid4())
