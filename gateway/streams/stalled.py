"""Writes to a client that may not read: a time limit for each message of a Stream or Watch call.

Owns the time limit. gRPC cannot end a call while a message of the call waits for the client's flow control. So at the
limit the call gives up everything else, and ends when the message has left or the connection is closed.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from market_inference.contract.errors import StalledReaderError


async def write(context: Any, message: bytes, seconds: float, give_up: Callable[[], None]) -> None:
    """Write a message; `give_up` is called when the message has not left after `seconds`.

    Raises StalledReaderError when the message has left after that time, CancelledError when the client has left.
    """
    stalled = False

    def stall() -> None:
        nonlocal stalled
        stalled = True
        give_up()

    timer = asyncio.get_running_loop().call_later(seconds, stall)
    try:
        await context.write(message)
    except grpc.aio.InternalError as gone:  # gRPC's word for a client that has left
        raise asyncio.CancelledError from gone
    finally:
        timer.cancel()
    if stalled:
        raise StalledReaderError(f"no answer was read for {seconds:g} s: the requests in flight were cancelled")
