"""The registry of models: a watched folder or bucket whose models are known by name and loaded when they are used.

Owns the scan. Every folder of the source is a model with a manifest.json (models/manifest.py); `kind` is the engine,
`name` the name in requests. A model in use is replaced by its new version at once: loaded beside, checked, swapped. If
the new version does not load, the previous version stays. A model that is not in use is loaded by its first request.
"""

import asyncio
import functools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from inference.loading.catalog import Catalog, Shadow
from inference.loading.source import LIST_SECONDS, Listing, Source, SourceAwayError
from market_inference.contract.errors import ServiceUnavailableError
from models.manifest import Manifest
from models.model import ModelUnavailableError
from runtime.logs import fields
from runtime.watcher import LookError, Watcher

log = logging.getLogger(__name__)

Loader = Callable[[Manifest, Path], Any]
Key: TypeAlias = tuple[str, str]
"""Engine and name of a model."""


@dataclass(frozen=True, slots=True)
class Found:
    """A folder's manifest, read. `reason` says why the folder is no model, if it is none."""

    content: bytes
    manifest: Manifest | None = None
    reason: str = ""


class Registry:
    """Watches a source. `loaders`: a loader per engine."""

    def __init__(self, source: Source, catalog: Catalog, loaders: dict[str, Loader]) -> None:
        self._source = source
        self._catalog = catalog
        self._loaders = loaders
        self._read: dict[str, Found] = {}
        # The folder and the content of the manifest of every model that the catalog has from here.
        self._taken: dict[Key, tuple[str, bytes]] = {}
        # Models that the last scan did not find. A second scan without the model takes the model away: a folder that
        # is replaced file by file has no manifest for a moment.
        self._missed: set[Key] = set()
        self._failed: dict[str, str] = {}
        self._listing: asyncio.Future[Listing] | None = None

    def watcher(self, interval: float) -> Watcher:
        """Scans every `interval` seconds. A scan may take as long as the models take to load."""
        return Watcher("models", self.look, interval=interval, timeout=math.inf)

    async def look(self) -> None:
        """scan(). Raises LookError with the folders of models that are not served, and the reasons."""
        try:
            await self.scan()
        except SourceAwayError as error:
            raise LookError(str(error)) from error
        if self._failed:
            raise LookError("; ".join(f"{folder}: {reason}" for folder, reason in sorted(self._failed.items())))

    async def scan(self) -> None:
        """Take every new or changed manifest, and let go of models that are gone. A failure concerns its folder alone.

        A model that failed to load is tried again at the next scan: memory was short, or a file was incomplete. A
        malformed manifest is read again when it changes. Raises SourceAwayError: then all models stay as they are.
        """
        listing = await self._listed()
        self._failed = dict(listing.unreadable)
        self._read = {
            folder: known
            if (known := self._read.get(folder)) and known.content == content
            else self._found(folder, content)
            for folder, content in listing.manifests.items()
        }
        folders: dict[Key, list[str]] = defaultdict(list)
        for folder, found in self._read.items():
            if found.manifest is None:
                self._failed[folder] = found.reason
            else:
                folders[found.manifest.kind, found.manifest.name].append(folder)
        for key, same in folders.items():
            if len(same) > 1:
                for folder in same:
                    others = ", ".join(repr(other) for other in same if other != folder)
                    self._failed[folder] = f"the model {key[1]!r} is in {others}, too: keep one folder per name"
            elif self._taken.get(key) != (same[0], self._read[same[0]].content):
                await self._take(key, same[0], self._read[same[0]])
        await self._forget(folders, listing.unreadable)
        self._catalog.set_shadows(dict(self._shadows()))
        self._catalog.set_refused(self._failed)

    async def _listed(self) -> Listing:
        """The source's listing. Raises SourceAwayError; a listing without an end keeps one thread, not one a scan."""
        if self._listing is None:
            self._listing = asyncio.ensure_future(asyncio.to_thread(self._source.listed))
        done, _ = await asyncio.wait({self._listing}, timeout=LIST_SECONDS)
        if not done:
            raise SourceAwayError(f"the registry did not list its models within {LIST_SECONDS:g} s")
        finished, self._listing = self._listing, None
        return finished.result()

    def _found(self, folder: str, content: bytes) -> Found:
        try:
            manifest = Manifest.read_from(content, folder)
        except ModelUnavailableError as error:
            return Found(content, reason=str(error))
        if manifest.kind not in self._loaders:
            return Found(content, reason=f"its kind {manifest.kind!r} is none of {', '.join(self._loaders)}")
        return Found(content, manifest)

    async def _take(self, key: Key, folder: str, found: Found) -> None:
        assert found.manifest is not None  # noqa: S101 -- narrows the type
        load = functools.partial(_load, self._source, self._loaders[key[0]], folder, found.manifest)
        try:
            await self._catalog.offer(*key, load)
        except ServiceUnavailableError as error:
            self._failed[folder] = error.message
        else:
            self._taken[key] = folder, found.content

    def _shadows(self) -> Iterator[tuple[Key, Shadow]]:
        """The shadows among the models taken from here, by the models beside which these run."""
        for (engine, name), (folder, _) in self._taken.items():
            found = self._read.get(folder)
            beside = found.manifest.extra.get("shadow") if found is not None and found.manifest is not None else None
            if isinstance(beside, dict) and isinstance(beside.get("of"), str):
                share = beside.get("share", 0.0)
                if isinstance(share, int | float) and 0 < share <= 1:
                    yield (engine, beside["of"]), Shadow(name, share)

    async def _forget(self, present: dict[Key, list[str]], unreadable: dict[str, str]) -> None:
        """Let go of models that two scans in a row did not find. A folder that cannot be read is not gone."""
        gone = {key for key, (folder, _) in self._taken.items() if key not in present and folder not in unreadable}
        for key in gone & self._missed:
            folder, _ = self._taken[key]
            if folder in self._failed:  # a malformed manifest took the place of a good one: the model stays
                continue
            try:
                await self._catalog.withdraw(*key)
            except ServiceUnavailableError as error:
                self._failed[folder] = error.message
            else:
                del self._taken[key]
                log.info("model removed from the registry", extra=fields(engine=key[0], model=key[1]))
        self._missed = gone


def _load(source: Source, loader: Loader, folder: str, manifest: Manifest) -> Any:
    """Called off the event loop."""
    return loader(manifest, source.fetch(folder, manifest))
