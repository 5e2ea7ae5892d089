"""The manifest of a model folder: kind, name, version, and the SHA-256 of every file of the model.

Owns reading, checking and writing `manifest.json`, and the rule that no byte is used before the digest has been
compared. The meaning of `settings` belongs to each kind of model.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.model import ModelUnavailableError

FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class Base:
    """Weights from an installed package, not part of the model folder, with the SHA-256 of each file."""

    package: str
    licence: str
    files: Mapping[str, str]

    def read(self, name: str) -> bytes:
        """The bytes of one file, read without importing the package.

        Raises ModelUnavailableError when the package or file is missing, or the digest differs.
        """
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ModelUnavailableError(f"the Python package {self.package!r}, which carries weights, is not installed")
        return verified(Path(spec.submodule_search_locations[0]) / name, self.files[name])


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`. `files` maps each file of the folder to a SHA-256 (64 hexadecimal digits)."""

    kind: str
    architecture: str
    name: str
    version: str
    licence: str
    dtype: str
    files: Mapping[str, str]
    labels: tuple[str, ...] = ()
    quantile_levels: tuple[float, ...] = ()
    base: Base | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Manifest":
        """Read the folder's manifest. Raises ModelUnavailableError for a missing or malformed manifest."""
        path = folder / FILE_NAME
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as missing:
            raise ModelUnavailableError(f"the model folder {folder.name!r} has no {FILE_NAME}") from missing
        except ValueError as malformed:
            raise ModelUnavailableError(f"{FILE_NAME} of {folder.name!r} is not JSON: {malformed}") from malformed
        try:
            return cls._from(fields)
        except (TypeError, ValueError, AttributeError) as malformed:
            raise ModelUnavailableError(f"{FILE_NAME} of {folder.name!r} is malformed: {malformed}") from malformed

    @classmethod
    def _from(cls, fields: dict[str, Any]) -> "Manifest":
        base = fields.pop("base", None)
        labels, levels = tuple(fields.pop("labels", ())), tuple(fields.pop("quantile_levels", ()))
        manifest = cls(**fields, labels=labels, quantile_levels=levels, base=Base(**base) if base else None)
        for name, digest in manifest.files.items():
            if Path(name).name != name or len(digest) != hashlib.sha256().digest_size * 2:
                raise ValueError(f"{name!r} must be a plain file name with its SHA-256 in hexadecimal digits")
        return manifest

    def read(self, folder: Path, name: str) -> bytes:
        """The bytes of one listed file. Raises ModelUnavailableError when unlisted, missing or altered."""
        if name not in self.files:
            raise ModelUnavailableError(f"{FILE_NAME} of {self.name!r} does not list {name!r}")
        return verified(folder / name, self.files[name])

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder, without empty fields."""
        fields = {name: value for name, value in asdict(self).items() if value not in (None, (), {})}
        (folder / FILE_NAME).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def verified(path: Path, sha256: str) -> bytes:
    """The file's bytes, read once: the checked bytes are the bytes in use, even if the file changes in between.

    Raises ModelUnavailableError when the file is missing or the digest differs.
    """
    try:
        content = path.read_bytes()
    except OSError as missing:
        raise ModelUnavailableError(f"the file {path.name!r} cannot be read: {missing.strerror}") from missing
    found = digest(content)
    if found != sha256:
        raise ModelUnavailableError(f"the file {path.name!r} has SHA-256 {found[:16]}…, expected {sha256[:16]}…")
    return content


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits (FIPS 180-4)."""
    return hashlib.sha256(content).hexdigest()
