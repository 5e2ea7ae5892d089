"""Watches promoted models in service, and rolls back a model with bad figures.

Owns the look at the replicas' metrics and the rollback. The limits are watch.py's, the swap is promotion.py's. A
replica that does not answer is left out of a look: its counts go on from where they were.
"""

import logging
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from sqlalchemy import Connection, RowMapping, select, update

from runtime.logs import fields
from training.plane import promotion, watch
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.duty import each
from training.plane.errors import ConflictError
from training.plane.model_tables import models
from training.plane.promotion import Author, Cause

log = logging.getLogger(__name__)

_SECONDS = 5.0
_MOST_BYTES = 16 << 20
NAME = "watchdog"


class ReplicasAwayError(Exception):
    """No replica's metrics can be read while a model is watched."""


class Watchdog:
    """`replicas` are the addresses of the replicas' metrics, `publish` makes the registry equal to the alias."""

    def __init__(self, store: Database, replicas: Sequence[str], publish: Callable[[str], None], clock: Clock) -> None:
        self._store = store
        self._replicas = replicas
        self._publish = publish
        self._clock = clock

    def look(self) -> None:
        """Look at every watched model once. Raises ReplicasAwayError, UndoneError."""
        watched = (models.c.watched_until > self._clock.now(), models.c.champion != "")
        with self._store.read() as connection:
            names = connection.execute(select(models.c.name).where(*watched)).scalars().all()
        if not names or not self._replicas:
            return
        texts = {replica: text for replica in self._replicas if (text := _scraped(replica))}
        if not texts:
            raise ReplicasAwayError(f"no metrics at {', '.join(self._replicas)}")
        each(names, lambda name: self._look_at(name, texts))

    def _look_at(self, name: str, texts: Mapping[str, str]) -> None:
        looks = {replica: watch.read(text, name) for replica, text in texts.items()}
        with self._store.begin() as connection:
            found = select(models).where(models.c.name == name).with_for_update()
            model = connection.execute(found).mappings().one()
            if model["watched_until"] is None or not model["champion"]:
                return
            state = watch.advance(model["watched"], model["champion"], looks)
            connection.execute(update(models).where(models.c.name == name).values(watched=state))
            reason = watch.disappoints(state)
            back = self._take_back(connection, model, reason) if reason else False
        if back:
            self._publish(name)

    def _take_back(self, connection: Connection, model: RowMapping, reason: str) -> bool:
        author = Author(NAME, reason, Cause.WATCHDOG)
        with suppress(ConflictError):  # another champion since this look
            before = promotion.rollback(connection, model["name"], author, self._clock.now(), model["champion"])
            log.warning(
                "model rolled back",
                extra=fields(model=model["name"], version=model["champion"], to=before, reason=reason),
            )
            return True
        return False


def _scraped(address: str) -> str:
    """The text of a replica's metrics; empty when the replica does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_SECONDS) as answer:  # the scheme is checked by the configuration
            content: bytes = answer.read(_MOST_BYTES)
    except OSError as error:
        log.warning("replica's metrics not read", extra=fields(address=address, error=type(error).__name__))
        return ""
    return content.decode(errors="replace")
