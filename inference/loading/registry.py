"""A watched folder of models: a new or changed model is loaded, checked and swapped in automatically.

Owns the scan. Every subfolder is a model with a manifest.json (models/manifest.py); `kind` is the engine, `name`
the name in requests. If a model does not load, the previous model stays.
"""

import asyncio
import functools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.loading.catalog import Catalog
from market_inference.contract.errors import ServiceUnavailableError
from models.manifest import FILE_NAME, MOST_BYTES, Manifest
from models.model import ModelUnavailableError
from runtime.logs import fields
from runtime.watcher import LookError, Watcher

log = logging.getLogger(__name__)

Loader = Callable[[Manifest, Path], Any]


class Registry:
    """Watches a folder. `loaders`: a loader per engine."""

    def __init__(self, folder: Path, catalog: Catalog, loaders: dict[str, Loader]) -> None:
        self._folder = folder
        self._catalog = catalog
        self._loaders = loaders
        # The manifest of every folder whose model was loaded.
        self._seen: dict[Path, bytes] = {}
        # Malformed manifests, with the reason; and every failure of the last scan.
        self._refused: dict[Path, tuple[bytes, str]] = {}
        self._failed: dict[Path, str] = {}

    def watcher(self, interval: float) -> Watcher:
        """Scans every `interval` seconds. A scan may take as long as the models take to load."""
        return Watcher("models", self.look, interval=interval, timeout=math.inf)

    async def look(self) -> None:
        """scan(). Raises LookError with the folders of models that are not served, and the reasons."""
        await self.scan()
        if self._failed:
            raise LookError("; ".join(f"{folder.name}: {reason}" for folder, reason in self._failed.items()))

    async def scan(self) -> None:
        """Load every model with a new or changed manifest. A failure concerns its folder alone.

        A model that failed to load is tried again at the next scan: memory was short, or a file was incomplete. A
        malformed manifest is read again when it changes.
        """
        found, unreadable = await asyncio.to_thread(_manifests, self._folder)
        refused = {
            folder: reason for folder, (content, reason) in self._refused.items() if found.get(folder) == content
        }
        self._refused = {folder: (found[folder], reason) for folder, reason in refused.items()}
        self._failed = {**unreadable, **refused}
        for folder, content in found.items():
            if folder not in refused and self._seen.get(folder) != content:
                await self._take(folder, content)

    async def _take(self, folder: Path, content: bytes) -> None:
        try:
            manifest = Manifest.read_from(content, folder.name)
            loader = self._loaders.get(manifest.kind)
            if loader is None:
                raise ModelUnavailableError(f"its kind {manifest.kind!r} is none of {', '.join(self._loaders)}")
        except ModelUnavailableError as error:
            self._refused[folder] = content, str(error)
            self._fail(folder, str(error))
            return
        try:
            await self._catalog.replace(manifest.kind, manifest.name, functools.partial(loader, manifest, folder))
        except ServiceUnavailableError as error:
            self._fail(folder, error.message)
        else:
            self._seen[folder] = content

    def _fail(self, folder: Path, reason: str) -> None:
        self._failed[folder] = reason
        log.warning("model not taken from the registry", extra=fields(folder=folder.name, reason=reason))


def _manifests(folder: Path) -> tuple[dict[Path, bytes], dict[Path, str]]:
    """The manifests by model folder, and the unreadable ones with the reason.

    A folder that is being written has no manifest yet: the manifest is the last file.
    """
    found, unreadable = {}, {}
    for path in sorted(folder.glob(f"*/{FILE_NAME}")):
        try:
            with path.open("rb") as file:
                found[path.parent] = file.read(MOST_BYTES + 1)
        except OSError as error:
            unreadable[path.parent] = f"{FILE_NAME} cannot be read: {error.strerror}"
    return found, unreadable
