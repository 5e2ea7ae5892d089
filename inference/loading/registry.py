"""A watched folder of models: a new or changed model is loaded, checked and swapped in automatically.

Owns the scan. Every subfolder is a model with a manifest.json (models/manifest.py); `kind` is the engine, `name`
the name in requests. If a model does not load, the previous model stays.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.loading.catalog import Catalog
from market_inference.contract.errors import ServiceUnavailableError
from models.manifest import FILE_NAME, Manifest
from models.model import ModelUnavailableError
from runtime.logs import fields

log = logging.getLogger(__name__)

Loader = Callable[[Manifest, Path], Any]


class Registry:
    """Watches a folder. `loaders`: a loader per engine."""

    def __init__(self, folder: Path, catalog: Catalog, loaders: dict[str, Loader]) -> None:
        self._folder = folder
        self._catalog = catalog
        self._loaders = loaders
        self._seen: dict[Path, bytes] = {}

    async def watch(self, interval: float) -> None:
        """Scan now and then every `interval` seconds, until cancelled."""
        while True:
            await self.scan()
            await asyncio.sleep(interval)

    async def scan(self) -> None:
        """Take in every folder whose manifest is new or has changed since the last scan."""
        for folder, content in (await asyncio.to_thread(_manifests, self._folder)).items():
            if self._seen.get(folder) != content and await self._take(folder):
                self._seen[folder] = content

    async def _take(self, folder: Path) -> bool:
        """Whether no retry is needed: the model is loaded, or the manifest is wrong."""
        try:
            manifest = Manifest.of(folder)
            loader = self._loaders.get(manifest.kind)
            if loader is None:
                raise ModelUnavailableError(f"its kind {manifest.kind!r} is none of {', '.join(self._loaders)}")
        except ModelUnavailableError as error:
            log.warning("model not taken from the registry", extra=fields(folder=folder.name, reason=str(error)))
            return True
        try:
            await self._catalog.replace(manifest.kind, manifest.name, functools.partial(loader, manifest, folder))
        except ServiceUnavailableError as error:
            # Perhaps for want of memory, or of a file that is still being written: the next scan tries again.
            log.warning("model not loaded from the registry", extra=fields(folder=folder.name, reason=error.message))
            return False
        return True


def _manifests(folder: Path) -> dict[Path, bytes]:
    """The manifest of every model folder. The manifest is written last, so an incomplete folder has none."""
    found = {}
    for path in sorted(folder.glob(f"*/{FILE_NAME}")):
        try:
            found[path.parent] = path.read_bytes()
        except OSError as error:
            log.warning("unreadable manifest", extra=fields(folder=path.parent.name, error=type(error).__name__))
    return found
