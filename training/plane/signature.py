"""Signed addresses of the folder store: HMAC-SHA-256 with a key from the database.

Owns the keys and their rotation. The newest key signs, the two newest keys verify, so that an address made before a
rotation stays valid until the next rotation.
"""

import contextlib
import hashlib
import hmac
import secrets
import threading
import time
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from training.plane.database import Database
from training.plane.errors import PermissionDeniedError
from training.plane.schema import secrets as table

_KEY_BYTES = 32
_VERIFYING: Final = 2
_READ_AGAIN_SECONDS = 5.0


class Signer:
    """Signs addresses and verifies signatures."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._keys: list[bytes] = []
        self._read_at = 0.0
        self._lock = threading.Lock()

    def sign(self, method: str, key: str, expires_at: float, **permitted: int | str) -> str:
        """The query of an address: the permission, its end, and the signature."""
        query = {**{name: str(value) for name, value in permitted.items()}, "expires": str(int(expires_at))}
        return urlencode({**query, "signature": _mac(self._current()[0], method, key, query)})

    def verify(self, method: str, key: str, query: dict[str, str], now: float) -> None:
        """Raises PermissionDeniedError, with one text for a wrong and an expired signature."""
        signed = {name: value for name, value in query.items() if name != "signature"}
        given = query.get("signature", "")
        # As bytes: the comparison of texts refuses characters beyond ASCII.
        mac = given.encode(errors="replace")
        good = any(hmac.compare_digest(_mac(one, method, key, signed).encode(), mac) for one in self._current())
        if not good or not signed.get("expires", "").isdigit() or int(signed["expires"]) <= now:
            raise PermissionDeniedError("the address is not valid: its signature is wrong or expired")

    def rotate(self) -> None:
        """Make a new key; the key before the last one ends."""
        with self._store.read() as connection:
            newest = connection.execute(select(func.max(table.c.name))).scalar()
        self._add(1 + int(newest or 0))
        self._read_at = -_READ_AGAIN_SECONDS

    def _add(self, number: int) -> None:
        row = {"name": f"{number:08d}", "value": secrets.token_hex(_KEY_BYTES), "created_at": time.time()}
        with self._store.begin() as connection:
            connection.execute(insert(table).values(**row))

    def _current(self) -> list[bytes]:
        """The keys, the newest first. Keys are read again after some seconds, since another worker may rotate."""
        with self._lock:
            if not self._keys or time.monotonic() - self._read_at > _READ_AGAIN_SECONDS:
                self._keys = self._read()
                self._read_at = time.monotonic()
            return self._keys

    def _read(self) -> list[bytes]:
        newest = select(table.c.value).order_by(table.c.name.desc()).limit(_VERIFYING)
        with self._store.read() as connection:
            found = connection.execute(newest).scalars().all()
        if found:
            return [bytes.fromhex(value) for value in found]
        with contextlib.suppress(IntegrityError):  # another worker has made the first key
            self._add(1)
        return self._read()


def _mac(secret: bytes, method: str, key: str, query: dict[str, str]) -> str:
    signed = "\n".join((method, key, urlencode(sorted(query.items()))))
    return hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()
