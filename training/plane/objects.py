"""Where bytes lie: datasets, artifacts, checkpoints and logs.

Owns the interface of an object store. folder.py and bucket.py are the two stores. Keys are made by this plane, never by
a caller. An object is written once: a signed upload of a key that exists is refused.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from training.plane import identifier

KEY: Final = re.compile(rf"(datasets|uploads|probes)/{identifier.PATTERN}")
CHUNK_BYTES: Final = 1 << 16


class ObjectMissingError(LookupError):
    """No object of this key."""


class ObjectsAwayError(Exception):
    """The store does not answer, or answers with an error of its own."""


class ObjectsFullError(Exception):
    """The store has no room."""


@dataclass(frozen=True, slots=True)
class SignedUpload:
    """Where and how to send the bytes. The bound on the size is part of the signature."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "PUT"


class Objects(Protocol):
    """Objects by key. Every verb raises ObjectsAwayError when the store is away."""

    streamed: bool
    """Whether the plane itself streams a dataset to the holder of a token."""

    def upload_url(self, key: str, size: int, seconds: float) -> SignedUpload:
        """An upload of exactly `size` bytes, once, within so many seconds."""

    def begin_parts(self, key: str) -> str:
        """An upload in parts; the id of the upload."""

    def part_url(self, key: str, upload: str, number: int, size: int, seconds: float) -> SignedUpload:
        """An upload of part `number`, counted from 1."""

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Make the object from its parts in order. `etags` are the ETag headers of the parts' uploads.

        Raises ObjectMissingError when a part is missing or has another etag.
        """

    def abort_parts(self, key: str, upload: str) -> None:
        """Delete the parts; no error when there are none."""

    def signed_download(self, key: str, seconds: float, name: str) -> str:
        """An address that serves the object to its holder for so many seconds, under the file name `name`."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`. Raises ObjectMissingError before the first chunk."""

    def size(self, key: str) -> int:
        """Raises ObjectMissingError."""

    def put(self, key: str, content: bytes) -> None:
        """Write a small object."""

    def empty(self, key: str) -> None:
        """Put an empty object in the place of the object, or of none: no address of an upload writes the key again."""

    def delete(self, key: str) -> None:
        """No error when there is no such object."""


def at_most(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The chunks until there are more than `most` bytes: an answer of the store may have no end."""
    for chunk in chunks:
        yield chunk
        most -= len(chunk)
        if most < 0:
            return


def content(objects: Objects, declared: Mapping[Any, Any]) -> bytes:
    """The bytes of a small object with this `key`, this number of `bytes` and this `sha256`.

    Raises ObjectMissingError, ObjectsAwayError for other bytes.
    """
    found = b"".join(at_most(objects.read(declared["key"]), declared["bytes"]))
    if hashlib.sha256(found).hexdigest() != declared["sha256"]:
        raise ObjectsAwayError("other bytes came than were stored")
    return found


def forget_bytes(objects: Objects, key: str, upload: str) -> None:
    """Delete an object and its parts. In S3 a part that was on its way may stay after one request."""
    if upload:
        objects.abort_parts(key, upload)
    objects.delete(key)
