"""The unit of work: one panel with one program."""

from dataclasses import dataclass

from models.indicators.panel import Panel
from models.indicators.program import Program


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A panel and a program. Raises SpecError when the panel lacks a column of the program."""

    panel: Panel
    program: Program

    def __post_init__(self) -> None:
        self.program.require(self.panel)
