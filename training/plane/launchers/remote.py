"""Shared by the launchers of rented machines: the script in the image, and questions to an unreliable platform."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runtime.remote.http import RemoteError
from runtime.remote.shapes import understood
from training.plane.launcher import (
    AnswerLostError,
    LauncherAwayError,
    LaunchError,
    LaunchImpossibleError,
    OfferRefusedError,
)

SCRIPT: Final = "/app/training/pod/run.sh"
"""The machine's script, in the image of machines that train."""


@contextmanager
def asking(whose: str) -> Iterator[None]:
    """Around questions to the platform and the reading of the answers; a decorator, too. Raises LauncherAwayError."""
    try:
        with understood(whose):
            yield
    except RemoteError as error:
        raise LauncherAwayError(str(error), error.retry_after) from None


def launch_error(error: RemoteError, *, refused: int = 0) -> LaunchError:
    """The platform's refusal of a machine; `refused`: the status by which another offer may do."""
    if error.status == 429:
        return LaunchError(str(error), error.retry_after)
    if error.status == 0 or error.status >= 500:
        return AnswerLostError(str(error))
    return OfferRefusedError(str(error)) if error.status == refused else LaunchImpossibleError(str(error))
