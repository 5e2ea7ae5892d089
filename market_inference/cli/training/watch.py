"""A job followed live: state, progress, loss, time left.

Owns the progress display; without a terminal, one line for each event.
"""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from market_inference.cli.training.plane import Plane, PlaneError

FINAL = frozenset({"succeeded", "failed", "cancelled", "refused"})
_TRIES = 10
_PAUSE_SECONDS = 2.0
_TOLD = {"cause", "exit_code", "reason", "step", "machine", "line", "command", "seconds"}


def watch(plane: Plane, job: str, console: Console) -> Any:
    """Show the job until it is final; the job. A stream that breaks is taken up again. Raises PlaneError."""
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        shown = _Shown(progress, progress.add_task(job, total=1.0), console)
        for tries in range(_TRIES):
            try:
                for kind, data in plane.follow(job, shown.seq):
                    shown.take(kind, data)
            except PlaneError as error:
                if error.status or tries == _TRIES - 1:
                    raise
            if shown.state in FINAL:
                break
            time.sleep(_PAUSE_SECONDS)
    return plane.json("GET", f"/jobs/{job}")


class _Shown:
    def __init__(self, progress: Progress, task: TaskID, console: Console) -> None:
        self._progress = progress
        self._task = task
        self._console = console
        self.seq = 0
        self.state = ""

    def take(self, kind: str, data: Any) -> None:
        """Show one event, or how far the job is."""
        if kind == "progress":
            self.state = data["state"]
            loss = f"  loss {data['loss']:.4f}" if "loss" in data else ""
            self._progress.update(self._task, completed=data.get("progress", 0.0), description=f"{self.state}{loss}")
            return
        self.seq = data["seq"]
        attempt = f" (attempt {data['attempt']})" if data.get("attempt") else ""
        more = "  ".join(f"{name} {data[name]}" for name in sorted(_TOLD & data.keys()) if data[name] not in ("", None))
        self._console.print(f"{clock(data['at'])}  {kind}{attempt}  {more}".rstrip(), markup=False)


def clock(at: float) -> str:
    """A Unix time as the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))
