"""TA-Lib's C library, as the installed `ta-lib` package carries it.

Owns the handles through which its functions are called and its own description of them is read. Which functions exist
and what they take is in catalogue.py; when and with what they are called, in plan.py.
"""

import ctypes

import talib
from talib import _ta_lib as extension

# Symbols resolve through the extension module to the C library it was linked with, whatever that file is called.
# The same functions twice: HOLDING keeps the interpreter lock during the call, RELEASING gives it up.
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
    """A parameter as the C functions take it. `value` is whole when `integer` is set."""
    return ctypes.c_int(int(value)) if integer else ctypes.c_double(value)
