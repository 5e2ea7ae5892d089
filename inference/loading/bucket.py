"""A registry that is an S3 bucket: `PREFIX/NAME/manifest.json` per model, and `PREFIX/.files/SHA256` per file.

Owns the listing and the local copies. A manifest is read again when its ETag changes. Files are fetched when a model is
loaded, never at a listing, and are kept under their digests, so that versions share files. boto3 finds the credentials.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from inference.loading.source import LIST_SECONDS, Listing, SourceAwayError
from models.manifest import FILE_NAME, MOST_BYTES, Manifest, digest, verify
from models.model import ModelUnavailableError
from runtime.extra import ExtraMissingError
from runtime.remote import s3
from runtime.remote.location import Location

FILES = ".files"
_CHUNK_BYTES = 1 << 20
_MOST_FOLDERS = 10_000


class BucketSource:
    """The models of a bucket. `cache` is a folder of this process or shared by replicas of one machine."""

    def __init__(self, location: Location, cache: Path) -> None:
        """Raises ExtraMissingError without boto3."""
        try:
            self._s3 = s3.client(location.endpoint, location.region)
        except ImportError as error:
            raise ExtraMissingError("MARKET_INFERENCE_REGISTRY=s3://...", "bucket") from error
        self._location = location
        self._cache = cache
        self._manifests: dict[str, tuple[str, bytes]] = {}

    def listed(self) -> Listing:
        """Raises SourceAwayError when the bucket does not answer, or answers without an end.

        The process waits at its end for the request in flight, and not for the whole listing.
        """
        until = time.monotonic() + LIST_SECONDS
        with self._answering():
            known = {}
            for name in self._folders(until):
                _require_time(until)
                known[name] = self._manifest(name)
        self._manifests = {name: read for name, read in known.items() if read is not None}
        return Listing({name: content for name, (_, content) in self._manifests.items()})

    def _folders(self, until: float) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._location.bucket, Prefix=self._location.prefix, Delimiter="/"
        )
        found: list[str] = []
        for number, page in enumerate(pages):
            _require_time(until)
            found += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            if max(number, len(found)) > _MOST_FOLDERS:
                raise SourceAwayError(f"the registry bucket lists more than {_MOST_FOLDERS} folders, or pages of them")
        names = [prefix.removeprefix(self._location.prefix).rstrip("/") for prefix in found]
        return sorted(name for name in names if not name.startswith("."))

    def _manifest(self, name: str) -> tuple[str, bytes] | None:
        """ETag and content. None without a manifest: the manifest is the last object of a model."""
        from botocore.exceptions import ClientError

        before = self._manifests.get(name)
        unchanged = {"IfNoneMatch": before[0]} if before else {}
        try:
            answer = self._s3.get_object(
                Bucket=self._location.bucket, Key=f"{self._location.prefix}{name}/{FILE_NAME}", **unchanged
            )
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 304:
                return before
            if status == 404:
                return None
            raise
        with contextlib.closing(answer["Body"]) as body:
            return answer["ETag"], body.read(MOST_BYTES + 1)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            raise SourceAwayError(f"the registry bucket answers {code}") from error
        except BotoCoreError as error:
            raise SourceAwayError(f"the registry bucket does not answer: {type(error).__name__}") from error

    def fetch(self, name: str, manifest: Manifest) -> Path:
        """A folder of links to the files' local copies. Raises ModelUnavailableError."""
        content = manifest.text().encode()
        folder = self._cache / "models" / f"{name}-{digest(content)[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file, sha256 in manifest.files.items():
                _link(self._copy(sha256), folder / file)
            manifest.write(folder)
        except OSError as error:
            raise ModelUnavailableError(f"no room for {manifest.name!r} in the cache: {error.strerror}") from error
        except SourceAwayError as error:
            raise ModelUnavailableError(f"{manifest.name!r} cannot be fetched: {error}") from error
        return folder

    def _copy(self, sha256: str) -> Path:
        """The local copy of a file. A copy appears under its digest only when it is whole and has that digest."""
        kept = self._cache / "files" / sha256
        if kept.is_file():
            return kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=".", delete=False) as fresh:
            try:
                with self._answering():
                    key = f"{self._location.prefix}{FILES}/{sha256}"
                    answer = self._s3.get_object(Bucket=self._location.bucket, Key=key)
                    with contextlib.closing(answer["Body"]) as body:
                        _check_room(answer.get("ContentLength"), kept.parent)
                        for chunk in body.iter_chunks(_CHUNK_BYTES):
                            fresh.write(chunk)
                fresh.flush()
                verify(Path(fresh.name), sha256)
                Path(fresh.name).replace(kept)
            except BaseException:
                Path(fresh.name).unlink(missing_ok=True)
                raise
        return kept


def _check_room(size: int | None, folder: Path) -> None:
    """Raises SourceAwayError for an answer that might never end, and OSError for a file larger than the room for it."""
    if size is None:
        raise SourceAwayError("the registry bucket does not say how long a file is")
    if size > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _require_time(until: float) -> None:
    if time.monotonic() > until:
        raise SourceAwayError(f"the registry bucket did not list its models within {LIST_SECONDS:g} s")


def _link(target: Path, link: Path) -> None:
    """Make or replace a symbolic link in one step: another process may load from the folder."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.resolve())
    fresh.replace(link)
