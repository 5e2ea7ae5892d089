"""Where the registry's models lie: a folder or a bucket.

Owns the interface. folder.py and bucket.py are the two sources; registry.py decides what is loaded.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from models.manifest import Manifest

LIST_SECONDS = 60.0
"""A listing of the source that takes longer has failed. The next listing begins after its end."""


class SourceAwayError(Exception):
    """The source cannot be listed now; the text says why. Models known from earlier stay."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The manifests by folder name, as bytes, and the unreadable ones with the reason."""

    manifests: dict[str, bytes] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


class Source(Protocol):
    """The models of a registry. Both methods block and are called off the event loop."""

    def listed(self) -> Listing:
        """Every model's manifest. Raises SourceAwayError."""
        ...

    def fetch(self, name: str, manifest: Manifest) -> Path:
        """A local folder with the files of the model in the folder `name`. Digests are checked where files are read.

        Raises ModelUnavailableError.
        """
        ...
