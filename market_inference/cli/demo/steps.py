"""What the demo does, step by step, and how long each step took.

Owns the lines shown while it runs and the summary at its end.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from market_inference.cli.commands.output import table


@dataclass(slots=True)
class Step:
    """One step; `detail` may be filled in while it runs."""

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
        """Times what happens inside. Without `spinner` the inside shows its own progress."""
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
            self.console.print(f"[green]done[/]  {name} [dim]{step.seconds:.2f} s[/]")

    def summary(self) -> Table:
        """How long each step took."""
        shown = table("How long it took", "step", "what it was", "seconds", left=2)
        for step in self.done:
            shown.add_row(step.name, step.detail, f"{step.seconds:.2f}")
        shown.add_section()
        shown.add_row("in all", "", f"{sum(step.seconds for step in self.done):.2f}")
        return shown
