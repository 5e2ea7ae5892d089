"""What SIGTERM does to a command that has child processes."""

import signal
from typing import NoReturn


def end_on_sigterm() -> None:
    """SIGTERM ends the command as Ctrl-C does, so that its child processes end with it."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
