"""The options for reading a file, for properties of a file that the content does not reveal."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field

from market_inference.client.files.error import FileError

ROLES = ("time", "clock", "open", "high", "low", "close", "volume", "symbol")
"""Roles of columns. `clock` is a time of day in a column beside the date."""
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " ", "\\t": "\t"}
DECIMALS = (".", ",")


@dataclass(frozen=True, slots=True)
class Options:
    """Options given by the user; None and empty values are decided from the content of the file.

    `columns`: role -> a column by name, or by number from 1. `delimiter`: one character, or a word of DELIMITERS.
    `decimal`: "." or ",". `encoding`: a Python codec. `date_format`: a strptime format, one of DMY, MDY and YMD, one of
    s, ms, us and ns for epochs, or excel for serial dates. `symbol`: the instrument to read from a file with several.
    Raises FileError for an invalid value.
    """

    columns: Mapping[str, str | int] = field(default_factory=dict)
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    date_format: str | None = None
    symbol: str | None = None

    def __post_init__(self) -> None:
        for role in self.columns:
            if role not in ROLES:
                raise FileError(f"columns: {role!r} is not a role; the roles are {', '.join(ROLES)}")
        if self.delimiter is not None:
            delimiter = DELIMITERS.get(self.delimiter, self.delimiter)
            if len(delimiter) != 1:
                raise FileError(
                    f"delimiter: expected one character or one of {', '.join(DELIMITERS)}, got {self.delimiter!r}"
                )
            object.__setattr__(self, "delimiter", delimiter)
        if self.decimal is not None and self.decimal not in DECIMALS:
            raise FileError(f"decimal: expected '.' or ',', got {self.decimal!r}")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise FileError(f"encoding: {self.encoding!r} is not a known encoding, such as cp1252") from None
