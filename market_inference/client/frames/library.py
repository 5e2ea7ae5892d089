"""The library of a frame: pandas or polars.

Owns the choice and the making of a frame from named columns. Neither library is a dependency of the client: a library
is imported when a frame is asked for.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from market_inference.errors import ArgumentError

LIBRARIES = ("pandas", "polars")


def choose(given: str, source: str) -> str:
    """The library that the caller names, else the library of the input, else the one that is installed.

    Raises ArgumentError for another name, ImportError when neither library is installed.
    """
    if given:
        if given not in LIBRARIES:
            raise ArgumentError("library", f"expected 'pandas' or 'polars', got {given!r}")
        return given
    if source in LIBRARIES:
        return source
    installed = next((name for name in LIBRARIES if find_spec(name) is not None), None)
    if installed is None:
        raise ImportError("a frame needs pandas or polars: pip install pandas")
    return installed


def frame(columns: Mapping[str, Any], library: str, *, index: str = "") -> Any:
    """A frame of the columns; `index` names the column that becomes the index of a pandas frame."""
    module: Any = import_module(library)
    if library == "polars":
        return module.DataFrame({name: _plain(values) for name, values in columns.items()})
    made = module.DataFrame(dict(columns))
    return made.set_index(index) if index else made


def _plain(values: Any) -> Any:
    """A column for polars, which takes neither a pandas index nor numpy's arrays of objects."""
    array = np.asarray(values)
    return array.tolist() if array.dtype.kind == "O" else array
