"""Signals that end a command with child processes."""

import signal
from typing import NoReturn


def end_on_signals() -> None:
    """Make SIGTERM, and the SIGHUP of a closed terminal, end the command like Ctrl-C: with its child processes.

    Under nohup SIGHUP stays ignored.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        signal.signal(hang_up, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
