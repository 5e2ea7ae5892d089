"""Files to and from the addresses that a training plane has signed.

Owns the rules for such an address, the bytes on their way, and how a fetched file takes the place of an older one.
"""

import hashlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from market_inference.cli.training import exchange
from market_inference.cli.training.exchange import PlaneError

_ANSWER_SECONDS: Final = 3600.0
"""For a store's answer to an upload, beside the time for the bytes."""
_LEAST_RATE: Final = 32 << 10
"""Bytes in a second: a slower transfer is given up."""
_PIECE: Final = 1 << 20


def put(signed: Mapping[str, Any], plane: str, file: Path, start: int, size: int) -> str:
    """Upload `size` bytes of the file from `start` to an address signed by the plane; the ETag. Raises PlaneError."""
    url = _checked(signed, plane)
    headers = signed.get("headers", {})
    if not isinstance(headers, dict):
        raise PlaneError("upload.headers: the training plane answered no object")
    with file.open("rb") as content:
        content.seek(start)
        sent = {**{str(name): str(value) for name, value in headers.items()}, "Content-Length": str(size)}
        request = urllib.request.Request(url, _Part(content, size), sent, method="PUT")  # noqa: S310 -- checked above
        seconds = _ANSWER_SECONDS + size / _LEAST_RATE
        with exchange.opened(request, seconds=seconds, silent_seconds=_ANSWER_SECONDS) as answer:
            return str(answer.headers.get("ETag", ""))


def fetch(signed: Mapping[str, Any], plane: str, artifact: Mapping[str, Any], folder: Path) -> Path:
    """Fetch an artifact from an address signed by the plane into the folder.

    The bytes go beside the file and replace it when size and digest are the declared ones; until then, and after a
    failure, the file of before stays. Raises PlaneError, OSError.
    """
    url = _checked(signed, plane)
    name, size = _name(artifact), _size(artifact)
    folder.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(folder).free):
        raise PlaneError(f"{name}: {size} bytes, and {folder} has room for {free}")
    file = folder / name
    place = Path(tempfile.mkdtemp(prefix=".market-inference-", dir=folder))
    try:
        fresh = place / "fresh"  # made with the mode that the user's mask gives to new files
        digest = _copied(urllib.request.Request(url), fresh, name, size)  # noqa: S310 -- checked above
        if digest != artifact.get("sha256"):
            raise PlaneError(f"{name}: the bytes are not the ones that were made")
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.replace(file)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return file


def _copied(request: urllib.request.Request, file: Path, name: str, size: int) -> str:
    """The SHA-256 of the answer's bytes, `size` of them, once the file holds them. Raises PlaneError, OSError."""
    digest, left = hashlib.sha256(), size
    with exchange.opened(request, seconds=exchange.SECONDS + size / _LEAST_RATE) as answer, file.open("wb", 0) as out:
        while chunk := answer.read(min(_PIECE, left + 1)):
            if (left := left - len(chunk)) < 0:
                raise PlaneError(f"{name}: more than the declared {size} bytes")
            digest.update(chunk)
            _written(out, chunk, name)
    if left:
        raise PlaneError(f"{name}: {size - left} of the declared {size} bytes")
    return digest.hexdigest()


def _written(out: FileIO, chunk: bytes, name: str) -> None:
    """Raises PlaneError: an OSError would count as one of the connection."""
    left = memoryview(chunk)
    try:
        while left:
            left = left[out.write(left) :]
    except OSError as error:
        raise PlaneError(f"{name}: cannot be written: {error}") from None


def _checked(signed: Any, plane: str) -> str:
    """The address, https, or http where the plane's own address is http, as for redirects. Raises PlaneError."""
    url = signed.get("url") if isinstance(signed, dict) else None
    if not isinstance(url, str) or not exchange.is_http(url, {"https", urlsplit(plane).scheme}):
        raise PlaneError("url: must be an https address, or http where the training plane is asked by http")
    return url


def _name(artifact: Mapping[str, Any]) -> str:
    """The last part of the artifact's name, a name in the folder. Raises PlaneError."""
    name = Path(str(artifact.get("name", ""))).name
    if name in {"", ".."} or "\0" in name:
        raise PlaneError("artifact.name: the training plane answered no name of a file")
    return name


def _size(artifact: Mapping[str, Any]) -> int:
    size = artifact.get("bytes")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise PlaneError("artifact.bytes: the training plane answered no size")
    return size


class _Part:
    """So many bytes of an open file, for urllib to read."""

    def __init__(self, content: Any, size: int) -> None:
        self._content = content
        self._left = size

    def read(self, most: int = -1) -> bytes:
        found: bytes = self._content.read(self._left if most < 0 else min(most, self._left))
        self._left -= len(found)
        return found
