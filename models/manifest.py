"""The manifest of a model folder: kind, name, version, and the SHA-256 of every file of the model.

Owns reading, checking and writing `manifest.json`, and the rule that no byte is used before the digest has been
compared. The meaning of `settings` belongs to each kind of model.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from models.model import ModelUnavailableError
from models.regular_file import opened

FILE_NAME = "manifest.json"
MOST_BYTES: Final = 1 << 20
"""Bytes of a manifest."""


def _file_name(name: str) -> str:
    if not name or Path(name).name != name:
        raise ValueError("must be a plain file name")
    return name


def _package_path(name: str) -> str:
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError("must be a path inside of the package")
    return name


_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^\P{C}+$")]
"""Without control characters, which would reach terminals."""
_PART = r"\w[\w.:+@-]*"
_ModelName = Annotated[_Name, Field(pattern=f"^{_PART}(/{_PART})*$")]
"""As in requests and lists of models: words and hub ids, no path."""
_FileName = Annotated[str, Field(max_length=255), AfterValidator(_file_name)]
_PackagePath = Annotated[str, Field(max_length=255), AfterValidator(_package_path)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Level = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Base:
    """Weights from an installed package, not part of the model folder, with the SHA-256 of each file."""

    package: _Name
    licence: _Name
    files: Annotated[Mapping[_PackagePath, _Sha256], Field(max_length=1024)]

    def read(self, name: str) -> bytes:
        """The bytes of one file, read without importing the package.

        Raises ModelUnavailableError when the package or file is missing, or the digest differs.
        """
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ModelUnavailableError(f"the Python package {self.package!r}, which carries weights, is not installed")
        return verified(Path(spec.submodule_search_locations[0]) / name, self.files[name])


@dataclass(frozen=True)
class _Members:
    """The members of manifest.json that this release knows, with their types and limits."""

    __pydantic_config__ = ConfigDict(extra="allow")

    kind: _Name
    architecture: _Name
    name: _ModelName
    version: _Name
    licence: _Name
    dtype: _Name
    files: Annotated[Mapping[_FileName, _Sha256], Field(max_length=1024)]
    labels: Annotated[tuple[_Name, ...], Field(max_length=1024)] = ()
    quantile_levels: Annotated[tuple[_Level, ...], Field(max_length=1024)] = ()
    base: Base | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest(_Members):
    """The content of `manifest.json`. `files` maps each file of the folder to a SHA-256 (64 hexadecimal digits).

    `lineage` says where the model comes from: job, digests of dataset, recipe and base, image. `extra` holds the fields
    that this release does not know: a replica of an older release must serve models of a newer release.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Manifest":
        """Read the folder's manifest. Raises ModelUnavailableError for a missing or malformed manifest."""
        try:
            with opened(folder / FILE_NAME) as file:
                return cls.read_from(file.read(MOST_BYTES + 1), folder.name)
        except FileNotFoundError as missing:
            raise ModelUnavailableError(f"the model folder {folder.name!r} has no {FILE_NAME}") from missing
        except OSError as error:
            raise ModelUnavailableError(f"{FILE_NAME} of {folder.name!r} cannot be read: {error.strerror}") from error

    @classmethod
    def read_from(cls, content: bytes, folder_name: str) -> "Manifest":
        """The manifest in the bytes of a file. Raises ModelUnavailableError for bytes that break the schema."""
        try:
            if len(content) > MOST_BYTES:
                raise ValueError(f"too large (max {MOST_BYTES} bytes)")
            members = {**vars(_schema().validate_json(content, strict=True))}
            extra = {name: members.pop(name) for name in members.keys() - _Members.__dataclass_fields__.keys()}
            return cls(**members, extra=extra)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)
            shown = [one for one in wrong if one["type"] == "missing"] or wrong[:1]
            reason = "; ".join(_reason(one["loc"], one["msg"]) for one in shown)
        except ValueError as error:
            reason = str(error)
        raise ModelUnavailableError(f"{FILE_NAME} of {folder_name!r} is malformed: {reason}")

    def read(self, folder: Path, name: str) -> bytes:
        """The bytes of one listed file. Raises ModelUnavailableError when unlisted, missing or altered."""
        if name not in self.files:
            raise ModelUnavailableError(f"{FILE_NAME} of {self.name!r} does not list {name!r}")
        return verified(folder / name, self.files[name])

    @contextmanager
    def linked(self, folder: Path) -> Iterator[Path]:
        """A temporary folder of links to the listed files, after every digest was compared.

        For libraries that read from a path: such a library meets no unlisted file. Raises ModelUnavailableError.
        """
        with tempfile.TemporaryDirectory(prefix="model-") as links:
            for name, sha256 in self.files.items():
                verify(folder / name, sha256)
                (Path(links) / name).symlink_to((folder / name).resolve())
            yield Path(links)

    def text(self) -> str:
        """The JSON of the manifest, without empty optional fields, with the fields of `extra`."""
        fields = asdict(self)
        extra = fields.pop("extra")
        kept = {name: value for name, value in fields.items() if value not in (None, (), {}) or name == "files"}
        return json.dumps({**kept, **extra}, indent=2) + "\n"

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder."""
        (folder / FILE_NAME).write_text(self.text(), encoding="utf-8")


def _reason(place: tuple[int | str, ...], what: str) -> str:
    field = ".".join(str(part)[:64] for part in place)
    return f"{field}: {what}" if field else what


@cache
def _schema() -> TypeAdapter[_Members]:
    return TypeAdapter(_Members)


def verified(path: Path, sha256: str) -> bytes:
    """The file's bytes, read once: the checked bytes are the bytes in use, even if the file changes in between.

    Raises ModelUnavailableError when the file is missing or the digest differs.
    """
    try:
        with opened(path) as file:
            content = file.read()
    except OSError as missing:
        raise _unreadable(path, missing) from missing
    found = digest(content)
    if found != sha256:
        raise _altered(path, found, sha256)
    return content


def verify(path: Path, sha256: str) -> None:
    """Compare a file's digest without holding the file. Raises ModelUnavailableError as verified() does."""
    try:
        with opened(path) as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as missing:
        raise _unreadable(path, missing) from missing
    if found != sha256:
        raise _altered(path, found, sha256)


def _unreadable(path: Path, error: OSError) -> ModelUnavailableError:
    return ModelUnavailableError(f"the file {path.name!r} cannot be read: {error.strerror}")


def _altered(path: Path, found: str, expected: str) -> ModelUnavailableError:
    return ModelUnavailableError(f"the file {path.name!r} has SHA-256 {found[:16]}…, expected {expected[:16]}…")


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits (FIPS 180-4)."""
    return hashlib.sha256(content).hexdigest()
