"""Text of files, names and servers as a terminal may show it.

Owns the characters that a terminal would obey, or that change the order of the others, and the printing of lines
without such characters. Tables are those of commands/output.py.
"""

import re
from typing import Final

import click

# Controls except tab and line feed, marks of the direction of writing, separators of lines, halves of characters.
_OBEYED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with such characters as escapes, `\x1b` for ESC; the ends of lines are line feeds.

    >>> printable("close\x1b[2J\r\n")
    'close\\x1b[2J\n'
    """
    return _OBEYED.sub(_escaped, text.replace("\r\n", "\n"))


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a text as printable() has it."""
    click.echo(printable(str(text)), err=err, nl=nl)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
