"""The registry that replicas read: a folder or a bucket, as inference/loading/ describes both.

Owns the writing. A model's files are whole before its manifest appears, and a manifest appears in one step.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from market_inference.contract.regular_file import opened
from runtime.remote import s3
from runtime.remote.location import Location

MANIFEST = "manifest.json"
_KEPT = 3
"""Versions of a model that stay in the folder: a replica may be loading the one before."""
_MOST_MANIFEST_BYTES = 1 << 20

Read = Callable[[str], Iterator[bytes]]
"""The bytes of a file, by the file's name."""


class RegistryError(Exception):
    """The registry cannot be written; the text says why."""


class ForeignModelError(RegistryError):
    """The registry has a model of this name that this plane has not published: a person placed the model there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the registry has a model {name!r} that this plane has not published; take that model away")


class Registry(Protocol):
    """Models by name. Every verb may be repeated. All raise RegistryError."""

    def manifest(self, name: str) -> bytes | None:
        """The manifest as replicas read it; None without the model."""
        ...

    def publish(self, name: str, manifest: Mapping[str, Any], read: Read) -> None:
        """Put the model, or another version of the model, in place. Raises ForeignModelError where a folder differs."""
        ...

    def remove(self, name: str) -> None:
        """Take the model away; no error without the model. Raises ForeignModelError where a folder differs."""
        ...


def text(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is written, in one form."""
    return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()


class FolderRegistry:
    """A folder: `.versions/NAME/DIGEST` holds a version, and the link `NAME` names the one in service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def manifest(self, name: str) -> bytes | None:
        try:
            with opened(self._folder / name / MANIFEST) as file:
                return file.read(_MOST_MANIFEST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RegistryError(f"the registry cannot be read: {error.strerror}") from error

    def publish(self, name: str, manifest: Mapping[str, Any], read: Read) -> None:
        content = text(manifest)
        home = self._folder / ".versions" / name
        final = home / hashlib.sha256(content).hexdigest()[:16]
        try:
            self._refuse_foreign(name)
            home.mkdir(parents=True, exist_ok=True)
            if not (final / MANIFEST).exists():
                self._write(home, final, manifest, content, read)
            self._point(name, final)
            self._sweep(home, final)
        except OSError as error:
            raise RegistryError(f"the registry cannot be written: {error.strerror}") from error

    def remove(self, name: str) -> None:
        try:
            self._refuse_foreign(name)
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(f"the registry cannot be written: {error.strerror}") from error

    def _refuse_foreign(self, name: str) -> None:
        """Raises ForeignModelError for an entry that is no link to a version of this folder."""
        try:
            published = (self._folder / name).readlink().parent == Path(".versions", name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            published = False
        if not published:
            raise ForeignModelError(name)

    def _write(self, home: Path, final: Path, manifest: Mapping[str, Any], content: bytes, read: Read) -> None:
        fresh = Path(tempfile.mkdtemp(dir=home, prefix=".new-"))
        try:
            for file, sha256 in manifest["files"].items():
                _copy(read(file), fresh / file, sha256)
            (fresh / MANIFEST).write_bytes(content)
            fresh.chmod(0o755)
            try:
                fresh.rename(final)
            except OSError:
                if not (final / MANIFEST).exists():  # else another worker was first
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _point(self, name: str, final: Path) -> None:
        """Move the link in one step."""
        link = self._folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        link.unlink(missing_ok=True)
        link.symlink_to(final.relative_to(self._folder))
        link.replace(self._folder / name)

    def _sweep(self, home: Path, final: Path) -> None:
        kept = sorted((path for path in home.iterdir() if path != final), key=_written)
        for path in kept[: -_KEPT or None]:
            shutil.rmtree(path, ignore_errors=True)


class BucketRegistry:
    """A bucket: `PREFIX/.files/SHA256` holds a file, `PREFIX/NAME/manifest.json` names the files in service."""

    def __init__(self, address: str) -> None:
        """`address` is s3://bucket/prefix?endpoint=URL&region=NAME. Raises ValueError."""
        location = Location.of(address)
        self._bucket, self._prefix = location.bucket, location.prefix
        self._s3: Any = s3.client(location.endpoint, location.region, repeats_silent=True)

    def manifest(self, name: str) -> bytes | None:
        with _answering():
            answer = self._found(self._s3.get_object, f"{self._prefix}{name}/{MANIFEST}")
            if answer is None:
                return None
            with contextlib.closing(answer["Body"]) as body:
                found: bytes = body.read(_MOST_MANIFEST_BYTES)
                return found

    def publish(self, name: str, manifest: Mapping[str, Any], read: Read) -> None:
        with _answering():
            for file, sha256 in manifest["files"].items():
                if self._found(self._s3.head_object, f"{self._prefix}.files/{sha256}") is None:
                    with tempfile.TemporaryDirectory(prefix="publish-") as folder:
                        _copy(read(file), Path(folder) / "file", sha256)
                        self._s3.upload_file(str(Path(folder) / "file"), self._bucket, f"{self._prefix}.files/{sha256}")
            self._s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}{name}/{MANIFEST}", Body=text(manifest))

    def remove(self, name: str) -> None:
        with _answering():
            self._s3.delete_object(Bucket=self._bucket, Key=f"{self._prefix}{name}/{MANIFEST}")

    def _found(self, ask: Callable[..., Any], key: str) -> Any:
        """The answer about an object; None without the object."""
        from botocore.exceptions import ClientError

        try:
            return ask(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise


def of(address: str) -> Registry:
    """The registry of a setting: a folder, or an s3:// address. Raises ValueError."""
    return BucketRegistry(address) if "://" in address else FolderRegistry(Path(address).absolute())


def _written(path: Path) -> float:
    """When the folder was written; 0 for a folder that another worker has renamed or deleted meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _copy(chunks: Iterator[bytes], path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != sha256:
        raise RegistryError(f"the file {path.name!r} has other bytes than its digest says")


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise RegistryError(f"the bucket answers {error.response.get('Error', {}).get('Code', '')}") from error
    except (BotoCoreError, S3UploadFailedError) as error:
        raise RegistryError(f"the bucket does not answer: {type(error).__name__}") from error
