"""Objects as files of a folder, with addresses signed by this plane.

Owns the files. The route that receives and serves the files is routes/objects.py. A file appears under its key only
when it is whole: bytes go to a temporary file, one for an object or a part, and the key is then linked to that file. An
object that came in parts is a folder. The name of a part's file is the number and the digest of the part, so that the
completion of an upload reads and copies nothing.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final
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

_PART: Final = re.compile("([1-9][0-9]*)[.][0-9a-f]{64}")


class ObjectExistsError(Exception):
    """An object is written once."""


class ObjectBusyError(Exception):
    """Another upload of the object is under way."""


class Incoming:
    """A file at `path` that is being written, and that leaves `keep_free` bytes of the disk."""

    def __init__(self, file: BinaryIO, path: Path, keep_free: int) -> None:
        self._file = file
        self._path = path
        self._keep_free = keep_free
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Raises OSError, FileNotFoundError once the upload was given up."""
        if not _is_at(self._path, self._file):
            raise FileNotFoundError(errno.ENOENT, "the upload was given up")
        self.check_room(len(chunk))
        self._digest.update(chunk)
        self._file.write(chunk)

    def check_room(self, size: int) -> None:
        """Raises OSError unless the disk has room for so many bytes more. Other writers may take the room."""
        disk = os.fstatvfs(self._file.fileno())
        if self._keep_free and disk.f_bavail * disk.f_frsize - size < self._keep_free:
            raise OSError(errno.ENOSPC, f"uploads leave {self._keep_free} bytes of the disk")


class FolderObjects:
    """Objects under `folder`. `public_url` is this plane's address as uploads and downloads reach it.

    `keep_free`: bytes of the disk that uploads leave for the database, logs and deletions.
    """

    streamed = True

    def __init__(self, folder: Path, signer: Signer, public_url: str, keep_free: int = 0) -> None:
        self._folder = folder
        self._signer = signer
        self._url = public_url.rstrip("/")
        self._keep_free = keep_free
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def upload_url(self, key: str, size: int, seconds: float) -> SignedUpload:
        query = self._signer.sign("PUT", key, time.time() + seconds, bytes=size)
        return SignedUpload(f"{self._url}/objects/{quote(key)}?{query}")

    def begin_parts(self, key: str) -> str:
        upload = secrets.token_hex(8)
        with _translated(key):
            self._parts(key, upload).mkdir(parents=True, mode=0o700)
        return upload

    def part_url(self, key: str, upload: str, number: int, size: int, seconds: float) -> SignedUpload:
        query = self._signer.sign("PUT", key, time.time() + seconds, bytes=size, upload=upload, part=number)
        return SignedUpload(f"{self._url}/objects/{quote(key)}?{query}")

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> None:
        parts = self._parts(key, upload)
        digests = [etag.strip('"') for etag in etags]
        wanted = {f"{number}.{digest}" for number, digest in enumerate(digests, start=1)}
        with _translated(key):
            if wanted != {part.name for part in parts.iterdir() if _PART.fullmatch(part.name)}:
                raise ObjectMissingError("a part is missing or another one")
            _give_up_all(parts.rename(self._path(key)))

    def abort_parts(self, key: str, upload: str) -> None:
        parts = self._parts(key, upload)
        gone = parts.with_name(f".{parts.name}")  # no part comes there any more
        with contextlib.suppress(ObjectMissingError), _translated(key):
            with contextlib.suppress(FileNotFoundError):  # a call before was cut off
                parts.rename(gone)
            _give_up_all(gone)
            shutil.rmtree(gone)

    def signed_download(self, key: str, seconds: float, name: str) -> str:
        query = self._signer.sign("GET", key, time.time() + seconds, name=name)
        return f"{self._url}/objects/{quote(key)}?{query}"

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        files = self._files(key)
        return _chunks(key, files, start, sum(files.values()) if end is None else end)

    def size(self, key: str) -> int:
        return sum(self._files(key).values())

    def put(self, key: str, content: bytes) -> None:
        with self._receive(key, "", 0, 0) as file:
            file.write(content)

    def empty(self, key: str) -> None:
        path = self._path(key)
        with _translated(key):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            os.truncate(path, 0)
            _give_up(_fresh(path.parent, path))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(ObjectMissingError), _translated(key):
            _give_up(_fresh(path.parent, path))
            for file in self._files(key):
                _give_up(file)
            if path.is_dir():
                shutil.rmtree(path)

    @contextlib.contextmanager
    def receive(self, key: str, upload: str = "", part: int = 0, size: int = 0) -> Iterator[Incoming]:
        """A file to write, of `size` bytes. It becomes the object, or a part of the object, when the block ends well.

        One writer at a time, of all processes: the bytes of an object need the room of one object. Raises
        ObjectExistsError, ObjectBusyError, ObjectMissingError for a part of an upload that has ended, ObjectsFullError
        before the disk has less than `keep_free` bytes, ObjectsAwayError.
        """
        with self._receive(key, upload, part, self._keep_free) as file:
            file.check_room(size)
            yield file

    @contextlib.contextmanager
    def _receive(self, key: str, upload: str, part: int, keep_free: int) -> Iterator[Incoming]:
        final = self._path(key)
        home = self._parts(key, upload) if upload else final.parent
        fresh = _fresh(home, final, part)
        with _translated(key):
            if not upload:
                home.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _alone(fresh, key) as file:
                if not upload and final.exists():  # with the file in place, which empty() gives up after its object
                    raise ObjectExistsError(key)
                incoming = Incoming(file, fresh, keep_free)
                yield incoming
                file.flush()
                os.fsync(file.fileno())
                if upload:
                    self._replace(fresh, home, part, incoming.sha256)
                else:
                    try:
                        final.hardlink_to(fresh)
                    except FileExistsError:
                        raise ObjectExistsError(key) from None

    def _replace(self, fresh: Path, home: Path, part: int, sha256: str) -> None:
        """Put a part in its place; the newest upload of a part counts."""
        final = fresh.replace(home / f"{part}.{sha256}")
        for other in home.glob(f"{part}.*"):
            if other != final:
                other.unlink(missing_ok=True)

    def _files(self, key: str) -> dict[Path, int]:
        """The files of an object in order, with their sizes."""
        path = self._path(key)
        with _translated(key):
            if not path.is_dir():
                return {path: path.stat().st_size}
            parts = {int(found[1]): one for one in path.iterdir() if (found := _PART.fullmatch(one.name))}
            return {parts[number]: parts[number].stat().st_size for number in sorted(parts)}

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ObjectMissingError(key)
        return self._folder / key

    def _parts(self, key: str, upload: str) -> Path:
        whole = self._path(key)
        return whole.with_name(f"{whole.name}.{upload}")


@contextlib.contextmanager
def _alone(path: Path, key: str) -> Iterator[BinaryIO]:
    """An empty file to write, of no other writer; away in the end. What a killed process has left is written over."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = _is_at(path, file)
        except BlockingIOError:
            held = False
        if not held:  # or the writer before has just ended, and taken the file away
            raise ObjectBusyError(key)
        try:
            file.truncate(0)
            yield file
        finally:
            if _is_at(path, file):  # a part has left already, and the next writer may have come
                path.unlink()


def _fresh(home: Path, final: Path, part: int = 0) -> Path:
    """Where the bytes of an upload under way are."""
    return home / f".{final.name}.{part}"


def _give_up(file: Path) -> None:
    """Delete a file that any process may have open: the bytes go at once, and writers and readers fail."""
    with contextlib.suppress(FileNotFoundError):
        os.truncate(file, 0)
        file.unlink()


def _give_up_all(parts: Path) -> None:
    for fresh in parts.glob(".*"):
        _give_up(fresh)


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _chunks(key: str, files: Mapping[Path, int], start: int, end: int) -> Iterator[bytes]:
    with _translated(key):
        for path, size in files.items():
            if start < min(size, end):
                with path.open("rb") as content:
                    content.seek(start)
                    while chunk := content.read(min(CHUNK_BYTES, min(size, end) - content.tell())):
                        yield chunk
                    if content.tell() < min(size, end):
                        raise ObjectMissingError(key)  # deleted since
            start, end = max(0, start - size), end - size


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    """Errors of files as those of objects.py."""
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissingError(key) from None
    except OSError as error:
        kind = ObjectsFullError if error.errno in {errno.ENOSPC, errno.EDQUOT} else ObjectsAwayError
        raise kind(error.strerror) from error
