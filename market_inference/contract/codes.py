"""The error that ends a call of grpc.aio: the status code by its number, and the details in the trailers."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import grpc
from google.rpc import status_pb2

from market_inference.contract import metadata
from market_inference.contract.errors import ServiceError

BY_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}


async def abort(context: Any, error: ServiceError) -> NoReturn:
    """End a call of grpc.aio with the error and its details, under the caller's request id or a new one."""
    sent = dict(context.invocation_metadata() or ())
    status = error.status(metadata.request_id(sent.get(metadata.REQUEST_ID)))
    await end(context, status, ((metadata.STATUS_DETAILS, status.SerializeToString()),))


async def end(context: Any, status: status_pb2.Status, trailers: Sequence[tuple[str, str | bytes]]) -> NoReturn:
    """End a call of grpc.aio with a status. Raises CancelledError when the caller has left."""
    try:
        await context.abort(BY_NUMBER[status.code], status.message, trailers)
    except grpc.aio.InternalError as gone:
        raise asyncio.CancelledError from gone
    raise AssertionError("abort() always raises")
