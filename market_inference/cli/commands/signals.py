"""SIGTERM in a command that has child processes."""

import signal
from typing import NoReturn


def end_on_sigterm() -> None:
    """Make SIGTERM end the command like Ctrl-C, so that the command ends its child processes."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
