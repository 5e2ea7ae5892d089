"""The machines of a plane: its launchers by name, and the names of its machines.

Owns the form of the names, `<name>-<id of the plane>-<job>-<attempt>`. Planes that share an account differ in the
id, so that no plane ends the machines of another plane.
"""

import contextlib
import re
import secrets
from collections.abc import Mapping
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from training.plane.database import Database
from training.plane.launcher import Launcher, LauncherAwayError
from training.plane.schema import settings

_ALPHABET: Final = "abcdefghjkmnpqrstvwxyz0123456789"
_ID_LENGTH: Final = 4
_ROW: Final = "plane_id"


class Machines:
    """`prefix` is common to the names of the plane's machines. The first launcher is the default."""

    def __init__(self, prefix: str, launchers: Mapping[str, Launcher]) -> None:
        self.prefix = prefix
        self._launchers = dict(launchers)
        self._pattern = re.compile(rf"{re.escape(prefix)}-[0-9a-z]{{26}}-[1-9]\d*")

    @property
    def launchers(self) -> Mapping[str, Launcher]:
        """All launchers by name."""
        return self._launchers

    @property
    def default(self) -> str:
        """The name of the launcher of jobs that name none."""
        return next(iter(self._launchers))

    def launcher(self, name: str) -> Launcher:
        """The launcher. Raises LauncherAwayError for one that the configuration no longer has."""
        try:
            return self._launchers[name]
        except KeyError:
            raise LauncherAwayError(f"launcher {name!r} is not configured") from None

    def name(self, job: str, attempt: int) -> str:
        """The name of an attempt's machine."""
        return f"{self.prefix}-{job.lower()}-{attempt}"

    def is_ours(self, name: str) -> bool:
        """Whether a machine of this name belongs to an attempt of this plane."""
        return self._pattern.fullmatch(name) is not None


def prefix(store: Database, name: str) -> str:
    """The prefix of the plane's machines: its name, and an id that the store keeps."""
    made = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    with contextlib.suppress(IntegrityError), store.begin() as connection:
        connection.execute(insert(settings).values(name=_ROW, value=made))
    with store.read() as connection:
        return f"{name}-{connection.execute(select(settings.c.value).where(settings.c.name == _ROW)).scalar_one()}"
