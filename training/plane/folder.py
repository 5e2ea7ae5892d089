"""Objects as files of a folder, with addresses signed by this plane.

Owns the files. The route that receives and serves the files is routes/objects.py. A file appears under its key only
when it is whole: bytes go to a temporary file, and the key is then linked to that file.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from training.plane.objects import (
    CHUNK_BYTES,
    KEY,
    ObjectMissingError,
    ObjectsAwayError,
    ObjectsFullError,
    SignedUpload,
)
from training.plane.signature import Signer


class ObjectExistsError(Exception):
    """An object is written once."""


class FolderObjects:
    """Objects under `folder`. `public_url` is this plane's address as uploads and downloads reach it."""

    def __init__(self, folder: Path, signer: Signer, public_url: str) -> None:
        self._folder = folder
        self._signer = signer
        self._url = public_url.rstrip("/")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def upload_url(self, key: str, size: int, seconds: float) -> SignedUpload:
        query = self._signer.sign("PUT", key, time.time() + seconds, bytes=size)
        return SignedUpload(f"{self._url}/objects/{quote(key)}?{query}")

    def begin_parts(self, key: str) -> str:
        return secrets.token_hex(8)

    def part_url(self, key: str, upload: str, number: int, size: int, seconds: float) -> SignedUpload:
        query = self._signer.sign("PUT", key, time.time() + seconds, bytes=size, upload=upload, part=number)
        return SignedUpload(f"{self._url}/objects/{quote(key)}?{query}")

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> None:
        parts = [self._part(key, upload, number) for number in range(1, len(etags) + 1)]
        for part, etag in zip(parts, etags, strict=True):
            if _digest(part) != etag.strip('"'):
                raise ObjectMissingError(f"part {part.suffix[1:]} is missing or another one")
        with self.receive(key) as whole:
            for part in parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, whole, CHUNK_BYTES)
        self.abort_parts(key, upload)

    def abort_parts(self, key: str, upload: str) -> None:
        for part in self._path(key).parent.glob(f"{self._path(key).name}.{upload}.*"):
            part.unlink(missing_ok=True)

    def download_url(self, key: str, seconds: float, name: str) -> str | None:
        """The plane streams downloads by token; artifacts have a signed address."""
        return None

    def signed_download(self, key: str, seconds: float, name: str) -> str:
        """An address that serves the object to its holder."""
        query = self._signer.sign("GET", key, time.time() + seconds, name=name)
        return f"{self._url}/objects/{quote(key)}?{query}"

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        try:
            content = self._path(key).open("rb")
        except FileNotFoundError:
            raise ObjectMissingError(key) from None
        except OSError as error:
            raise ObjectsAwayError(error.strerror) from error
        return _chunks(content, start, end)

    def size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            raise ObjectMissingError(key) from None
        except OSError as error:
            raise ObjectsAwayError(error.strerror) from error

    def put(self, key: str, content: bytes) -> None:
        with self.receive(key) as file:
            file.write(content)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def receive(self, key: str, upload: str = "", part: int = 0) -> Iterator[BinaryIO]:
        """A file to write. The file becomes the object, or a part of the object, when the block ends well.

        Raises ObjectExistsError, ObjectsFullError, ObjectsAwayError.
        """
        final = self._part(key, upload, part) if upload else self._path(key)
        fresh = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with fresh.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if upload:
                fresh.replace(final)
            else:
                final.hardlink_to(fresh)
        except FileExistsError:
            raise ObjectExistsError(key) from None
        except OSError as error:
            kind = ObjectsFullError if error.errno in {errno.ENOSPC, errno.EDQUOT} else ObjectsAwayError
            raise kind(error.strerror) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ObjectMissingError(key)
        return self._folder / key

    def _part(self, key: str, upload: str, number: int) -> Path:
        whole = self._path(key)
        return whole.with_name(f"{whole.name}.{upload}.{number}")


def _chunks(content: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    with content:
        content.seek(start)
        left = None if end is None else end - start
        while left is None or left > 0:
            chunk = content.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            left = None if left is None else left - len(chunk)
            yield chunk


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
