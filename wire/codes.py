"""How a call ends with an error: gRPC's status codes by their numbers, and the details beside them."""

from typing import Any, Final, NoReturn

import grpc

from wire import metadata
from wire.errors import ServiceError

BY_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}


async def abort(context: Any, error: ServiceError) -> NoReturn:
    """End a call of grpc.aio with the error and its details."""
    status = error.status()
    details = ((metadata.STATUS_DETAILS, status.SerializeToString()),)
    await context.abort(BY_NUMBER[status.code], status.message, details)
    raise AssertionError("abort() always raises") from error
