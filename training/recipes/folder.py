"""The manifest of a folder that a library has written, so that the registry serves the folder.

Owns the digests. The plane gives the model the name and version of its promotion (training/plane/publisher.py).
"""

from collections.abc import Set
from pathlib import Path
from typing import Any

from models.manifest import FILE_NAME, Manifest, digest


def write_manifest(folder: Path, unlisted: Set[str], **fields: Any) -> None:
    """List every file of the folder but `unlisted`; `fields` are those of Manifest."""
    kept = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in {*unlisted, FILE_NAME})
    files = {path.name: digest(path.read_bytes()) for path in kept}
    Manifest(**{"licence": "as the base", **fields}, files=files).write(folder)
