"""Hints of the reader of files, in the names of the query's parameters.

Owns the words for options of the command line, which the reader's errors and notes name. A query has no parameter for
columns other than the close, or for an encoding: there the hint says what to change in the file.
"""

import re
from typing import Final

_HINTS: Final = (
    (r"give --columns time=1,\S+ with the numbers of the columns", "put a line such as time,open,high,low,close first"),
    (r"--columns close=", "column="),
    (r"(?:give|choose with) --columns (\w+)=(?:NAME)?", r"rename one to \1"),
    (r"--date-format(?: (?=\S))?", "date_format="),
    (r"--decimal ", "decimal="),
    (r"give the encoding, such as --encoding \S+", "send UTF-8"),
    (r"the encoding must be given \(--encoding \S+\)", "send UTF-8"),
)
_PATTERNS: Final = tuple((re.compile(pattern), words) for pattern, words in _HINTS)


def of_query(text: str) -> str:
    """An error or a note of the reader, for the sender of a query."""
    for pattern, words in _PATTERNS:
        text = pattern.sub(words, text)
    return text.removeprefix("the file: ")  # the reader's name for a file without a name
