"""The surroundings of a run in a separate folder. The run is told to stop after `stop_after` checkpoints, if any."""

from pathlib import Path

from training.recipes.run import Surroundings


def around(data: Path, folder: Path, stop_after: int = 0, resume: Path | None = None) -> Surroundings:
    out = folder / "out"
    out.mkdir(parents=True)
    steps = 0

    def keep(step: int, write: object) -> None:
        nonlocal steps
        steps += 1
        (folder / "checkpoint").mkdir(exist_ok=True)
        write(folder / "checkpoint")

    return Surroundings(
        data=data, out=out, resume=resume, measure=lambda *_: None, checkpoint=keep,
        stopping=lambda: bool(stop_after) and steps >= stop_after,
    )  # fmt: skip
