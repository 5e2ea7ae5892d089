"""The event loop of a service: uvloop's where the package is installed, else asyncio's, as on Windows."""

import asyncio
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine to its end in a new event loop; the coroutine's result."""
    if find_spec("uvloop") is None:
        return asyncio.run(main)
    import uvloop

    result: Result = uvloop.run(main)
    return result
