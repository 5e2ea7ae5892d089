"""The steps of the demo and the time that each step took.

Owns the lines shown during the run and the summary at the end.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from market_inference.cli.commands.output import table


@dataclass(slots=True)
class Step:
    """One step; the code inside the step may set `detail`."""

    name: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Steps:
    """The steps so far, announced on `console`."""

    console: Console
    done: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, *, spinner: bool = True) -> Iterator[Step]:
        """Time the code inside. Pass `spinner=False` for code that shows its own progress."""
        step, began = Step(name), time.perf_counter()
        if not self.console.is_terminal:
            self.console.print(f"{name} ...")
        if spinner and self.console.is_terminal:
            with self.console.status(f"{name} ..."):
                yield step
        else:
            yield step
        step.seconds = time.perf_counter() - began
        self.done.append(step)
        if self.console.is_terminal:
            self.console.print(
                Text("done  ", style="green"), Text(f"{name} "), Text(f"{step.seconds:.2f} s", style="dim"), sep=""
            )

    def summary(self) -> Table:
        """A table of steps and seconds."""
        shown = table("How long it took", "step", "detail", "seconds", left=2)
        for step in self.done:
            shown.add_row(step.name, step.detail, f"{step.seconds:.2f}")
        shown.add_section()
        shown.add_row("in all", "", f"{sum(step.seconds for step in self.done):.2f}")
        return shown
