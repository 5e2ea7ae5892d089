"""TA-Lib's C library, as shipped in the installed `ta-lib` package.

Owns the handles for calling the C functions and for reading the library's description. The list of functions is in
functions.py, the calls are in plan.py.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Within the block, packages that no code has imported so far look as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# TA-Lib imports both for frames, which are never passed here: 0.3 s and 50 MB of a service.
with _without("pandas", "polars"):
    import talib
    from talib import _ta_lib as extension
    from talib import abstract as abstract

# Symbols resolve through the extension module to the linked C library, independent of the library's file name.
# Two handles to the same functions: HOLDING keeps the interpreter lock during a call, RELEASING releases the lock.
HOLDING = ctypes.PyDLL(extension.__file__)
RELEASING = ctypes.CDLL(extension.__file__)

VERSION: str = talib.__ta_version__.decode().split()[0]


def description() -> bytes:
    """The C library's XML description of every function: inputs, parameters with ranges, outputs with types."""
    describe = HOLDING.TA_FunctionDescriptionXML
    describe.restype = ctypes.c_char_p
    text: bytes = describe()
    return text


def argument(value: float, integer: bool) -> ctypes.c_int | ctypes.c_double:
    """A parameter as a C value. `value` must be a whole number when `integer` is set."""
    return ctypes.c_int(int(value)) if integer else ctypes.c_double(value)
