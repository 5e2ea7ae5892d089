"""The event loop of a service: uvloop's where the package is installed, else asyncio's, as on Windows."""

import asyncio
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine to its end in a new event loop."""
    if find_spec("uvloop") is None:
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)
