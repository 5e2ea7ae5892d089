"""Shared by the launchers of rented machines: the script in the image, and questions to an unreliable platform."""

from collections.abc import Callable
from typing import Final, TypeVar

from runtime.remote.http import RemoteError
from training.plane.launcher import LauncherAwayError

T = TypeVar("T")

SCRIPT: Final = "/app/training/pod/run.sh"
"""The machine's script, in the image of machines that train."""


def asked(call: Callable[[], T]) -> T:
    """The platform's answer. Raises LauncherAwayError when the platform gives none."""
    try:
        return call()
    except RemoteError as error:
        raise LauncherAwayError(str(error), error.retry_after) from None
