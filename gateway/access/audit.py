"""One log line for every refusal of authentication or authorisation, beside the line of the call itself.

Owns the content of that line: the client, its address, the method, and the public part of the credential alone.
"""

import logging
from collections.abc import Callable

from gateway.calls.call import Call
from market_inference.contract.errors import PermissionDeniedError, ServiceError, UnauthenticatedError
from runtime import logs

log = logging.getLogger("gateway.audit")


def note(call: Call, error: ServiceError, peer: Callable[[], str]) -> None:
    """Write the line when the error is such a refusal. `peer()` is gRPC's name of the client's address."""
    if isinstance(error, UnauthenticatedError | PermissionDeniedError):
        values: dict[str, object] = {
            "reason": error.reason,
            "why": error.message,
            "method": call.method.name,
            "request_id": call.request_id,
            "client": call.client.name,
            "credential": call.credential,
            "peer": peer(),
        }
        logs.event(log, logging.WARNING, "refused", values)
