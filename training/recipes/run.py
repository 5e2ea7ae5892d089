"""The surroundings of a training run, and its outcome.

Owns the interface between a recipe and its surroundings: data in, measurements and checkpoints on the way, artifacts
out. A recipe knows neither the plane nor the network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class DataRefusedError(Exception):
    """The data cannot be trained on; the text says the row or the reason. Another try would end the same."""


class StoppedError(Exception):
    """The job shall end; a checkpoint was written where there was something to keep."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`data` is the dataset's file, `out` an empty folder for the artifacts.

    `resume` is the folder of the newest checkpoint, None at the first start. `measure(step, steps, values)` notes
    numbers. `checkpoint(step, write)` calls write(folder) and keeps the files. `stopping()` says whether to end: the
    recipe then writes a checkpoint and raises StoppedError.
    """

    data: Path
    out: Path
    resume: Path | None
    measure: Callable[[int, int, Mapping[str, float]], None]
    checkpoint: Callable[[int, Callable[[Path], None]], None]
    stopping: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The measures of the trained model. The artifacts lie in `out`."""

    measures: dict[str, float] = field(default_factory=dict)
