"""One log line for every refusal of authentication or authorisation, apart from the requests' lines.

Owns what such a line says: who, from where, what was asked, and the public part of the credential, never more of it.
"""

import logging
from collections.abc import Callable

from gateway.calls.request import Request
from market_inference.contract.errors import PermissionDeniedError, ServiceError, UnauthenticatedError
from runtime.logs import fields

log = logging.getLogger("gateway.audit")


def note(request: Request, error: ServiceError, peer: Callable[[], str]) -> None:
    """Write the line when the error is such a refusal. `peer()` is gRPC's name for the other end, empty in a stream."""
    if isinstance(error, UnauthenticatedError | PermissionDeniedError):
        log.warning(
            "refused",
            extra=fields(
                reason=error.reason,
                why=error.message,
                method=request.method.name,
                request_id=request.request_id,
                client=request.client,
                credential=request.credential,
                peer=peer(),
            ),
        )
