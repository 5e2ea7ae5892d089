"""`python -m training.pod START DATA`: resume, train, upload. run.sh calls this and keeps the exit code."""

import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from training.pod import files
from training.pod.plane import AwayError, Plane, RefusedError
from training.pod.report import SECONDS, Reporter
from training.recipes import recipe as recipes
from training.recipes.run import DataRefusedError, Outcome, StoppedError, Surroundings

DATA_REFUSED, HELD_TOO_LONG, CANCELLED = 65, 75, 76


class Pod:
    """One attempt, after run.sh has fetched the recipe and the data."""

    def __init__(self, start: dict[str, Any], data: Path, plane: Plane) -> None:
        self._start = start
        self._data = data
        self._plane = plane
        self._reporter = Reporter(plane, float(os.environ.get("REPORT_SECONDS", SECONDS)))
        self._told = threading.Event()

    def run(self) -> int:
        """The exit code."""
        signal.signal(signal.SIGTERM, self._tell)
        asked = recipes.of(self._start["recipe"])
        os.environ.setdefault("OMP_NUM_THREADS", str(asked.threads))
        self._reporter.start()
        try:
            outcome = self._train(asked)
            self._reporter.stop()
            files.hand_over(self._plane, Path("out"), outcome.measures)
        except DataRefusedError as error:
            print(f"the data are refused: {error}", flush=True)
            return DATA_REFUSED
        except StoppedError:
            print(f"stopped: {self._reporter.why_stopping or 'told to'}", flush=True)
            return CANCELLED
        except AwayError as error:
            print(f"the artifacts could not be uploaded: {error}", flush=True)
            return HELD_TOO_LONG
        finally:
            self._reporter.stop()
        print(f"done: {json.dumps(outcome.measures)}", flush=True)
        return 0

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told.set()

    def _train(self, asked: Any) -> Outcome:
        out = Path("out")
        out.mkdir(exist_ok=True)
        train = importlib.import_module(f"training.recipes.{asked.kind}").train
        surroundings = Surroundings(
            data=self._data,
            out=out,
            resume=self._resume(),
            measure=self._reporter.measure,
            checkpoint=self._checkpoints(asked.checkpoint_seconds),
            stopping=lambda: self._told.is_set() or self._reporter.stopping.is_set(),
        )
        outcome: Outcome = train(asked, surroundings)
        return outcome

    def _resume(self) -> Path | None:
        described = self._start["checkpoint"]
        if described is None:
            return None
        print(f"resuming at step {described['step']}", flush=True)
        files.resume(described, Path("resume"))
        return Path("resume")

    def _checkpoints(self, seconds: float) -> Callable[[int, Callable[[Path], None]], None]:
        """Writes and uploads a checkpoint, but not more often than every so many seconds.

        An upload that fails must not end the training: the next checkpoint comes.
        """
        last = time.monotonic()

        def keep(step: int, write: Callable[[Path], None]) -> None:
            nonlocal last
            if time.monotonic() - last < seconds and not self._told.is_set():
                return
            folder = Path("checkpoint")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write(folder)
            try:
                files.checkpoint(self._plane, folder, step)
            except (AwayError, RefusedError) as error:
                print(f"checkpoint of step {step} not uploaded: {error}", flush=True)
            last = time.monotonic()

        return keep


def main() -> None:
    """Exit with the attempt's code."""
    start, data = Path(sys.argv[1]), Path(sys.argv[2])
    sys.exit(Pod(json.loads(start.read_text(encoding="utf-8")), data, Plane.of_environment()).run())


main()
