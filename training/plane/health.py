"""Health by doing: a row is written and read back, an object is written, read back and deleted.

Owns the probe of one worker. A database or an object store that answers but cannot be written is unhealthy.
"""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from training.plane import identifier
from training.plane.objects import ObjectMissingError, ObjectsAwayError, ObjectsFullError, at_most
from training.plane.schema import totals
from training.plane.services import Services


def look(services: Services) -> dict[str, Any]:
    """`status` healthy or unhealthy, and for each part: works or not, the seconds, the reason."""
    parts = {"store": _timed(lambda: _probe_store(services)), "objects": _timed(lambda: _probe_objects(services))}
    good = all(part["healthy"] for part in parts.values())
    return {"status": "healthy" if good else "unhealthy", "at": services.clock.now(), **parts}


def _timed(probe: Callable[[], None]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        probe()
    except (SQLAlchemyError, ObjectsAwayError, ObjectsFullError, ObjectMissingError) as error:
        return {"healthy": False, "error": type(error).__name__}
    return {"healthy": True, "seconds": round(time.monotonic() - began, 4)}


def _probe_store(services: Services) -> None:
    """A row with a name that no other probe uses, so that probes of several workers do not meet."""
    name = f"probe-{identifier.new()}"
    with services.store.begin() as connection:
        connection.execute(insert(totals).values(kind=name, swept=1))
        connection.execute(select(totals.c.swept).where(totals.c.kind == name)).one()
        connection.execute(delete(totals).where(totals.c.kind == name))


def _probe_objects(services: Services) -> None:
    """A store that is away is asked once: a silent store takes the full time for each question."""
    key = f"probes/{identifier.new()}"
    services.objects.put(key, b"probe")
    came = b"".join(at_most(services.objects.read(key), 5))
    services.objects.delete(key)
    if came != b"probe":
        raise ObjectsAwayError("another content came back")
