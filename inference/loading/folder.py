"""A registry that is a folder: every subfolder with a manifest.json is a model.

Owns the listing. A subfolder may be a link: the target is resolved at each listing, so that a model loads from one
version's folder to the end, even when the link moves to another version meanwhile.
"""

import os
from pathlib import Path

from inference.loading.source import Listing, SourceAwayError
from models.manifest import FILE_NAME, MOST_BYTES, Manifest
from models.regular_file import opened


class FolderSource:
    """A folder that exists, or will. Folders whose names begin with a dot are not models."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = False
        self._targets: dict[str, Path] = {}

    def listed(self) -> Listing:
        """Raises SourceAwayError for a folder that was there and is away: a lost mount takes no model away."""
        try:
            folders = sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self._seen:
                return Listing()
            raise SourceAwayError(f"the registry folder cannot be listed: {error.strerror}") from error
        self._seen = True
        found = Listing()
        for path in folders:
            try:
                target = Path(os.path.realpath(path, strict=True))  # Path.resolve() raises RuntimeError for a loop
                with opened(target / FILE_NAME) as file:
                    found.manifests[path.name] = file.read(MOST_BYTES + 1)
                self._targets[path.name] = target
            except (FileNotFoundError, NotADirectoryError):
                continue  # being written: the manifest is the last file; or no model at all
            except OSError as error:
                found.unreadable[path.name] = f"{FILE_NAME} cannot be read: {error.strerror}"
        return found

    def fetch(self, name: str, manifest: Manifest) -> Path:
        """The folder as it was resolved at the last listing."""
        return self._targets.get(name, self._folder / name)
