"""Types of options: numbers within bounds, and ports; and options that are one parameter of a command.

Owns the conversion of an option's text. click's own ranges let `nan` pass.
"""

import math
from dataclasses import fields
from typing import Any, TypeVar, cast

import click

T = TypeVar("T")


def gathered(kind: type[T], options: dict[str, Any]) -> T:
    """The options that are fields of a dataclass, as the dataclass; taken out of `options`."""
    return kind(**{one.name: options.pop(one.name) for one in fields(cast(Any, kind))})


class Number(click.ParamType):  # type: ignore[type-arg]  # generic in click's stubs alone
    """A finite number, from `least` or above `above`, and below `below`. `hint` follows the refusal."""

    name = "number"

    def __init__(
        self, *, least: float | None = None, above: float | None = None, below: float | None = None, hint: str = ""
    ) -> None:
        self._least = least
        self._above = above
        self._below = below
        self._hint = hint

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; ends the command with exit status 2 for any other text."""
        try:
            found = float(str(value))
        except ValueError:
            found = math.nan
        if not math.isfinite(found) or self._is_outside(found):
            self.fail(f"expected {self._expected()}, got {value!r}{self._hint}", param, ctx)
        return found

    def _is_outside(self, value: float) -> bool:
        return (
            (self._least is not None and value < self._least)
            or (self._above is not None and value <= self._above)
            or (self._below is not None and value >= self._below)
        )

    def _expected(self) -> str:
        bounds = (
            "" if self._least is None else f"from {self._least:g}",
            "" if self._above is None else f"above {self._above:g}",
            "" if self._below is None else f"below {self._below:g}",
        )
        return " ".join(("a number", *(" and ".join(bound for bound in bounds if bound),))).rstrip()


class Whole(click.IntRange):
    """A whole number within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; ends the command with exit status 2 for any other text."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            bounds = "".join(
                f" {word} {bound}" for word, bound in (("from", self.min), ("to", self.max)) if bound is not None
            )
            self.fail(f"expected a whole number{bounds}, got {str(value)!r}", param, ctx)


SHARE = Number(above=0, below=1, hint="; for 80% write 0.8")
PORT = Whole(0, 65535)
