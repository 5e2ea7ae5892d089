"""Signed addresses: rights, end, and rotations of the key."""

import time

import pytest

from training.plane.database import Database
from training.plane.errors import PermissionDeniedError
from training.plane.signature import Signer


def test_signatures_survive_one_rotation(store: Database) -> None:
    signer, other = Signer(store), Signer(store)
    now = time.time()

    def query(made: str) -> dict[str, str]:
        return dict(part.split("=") for part in made.split("&"))

    first = query(signer.sign("PUT", "uploads/X", now + 60, bytes=3))
    other.verify("PUT", "uploads/X", first, now)
    for method, key, changed, at in (
        ("GET", "uploads/X", first, now),
        ("PUT", "uploads/Y", first, now),
        ("PUT", "uploads/X", {**first, "bytes": "4"}, now),
        ("PUT", "uploads/X", {**first, "expires": "9999999999"}, now),
        ("PUT", "uploads/X", {**first, "expires": "x"}, now),
        ("PUT", "uploads/X", {}, now),
        ("PUT", "uploads/X", first, now + 61),
    ):
        with pytest.raises(PermissionDeniedError):
            signer.verify(method, key, changed, at)
    signer.rotate()
    signer.verify("PUT", "uploads/X", first, now)
    signer.rotate()
    with pytest.raises(PermissionDeniedError, match="not valid"):
        signer.verify("PUT", "uploads/X", first, now)
