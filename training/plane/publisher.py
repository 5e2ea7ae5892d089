"""Makes the registry equal to the aliases: level, not edge.

Owns the manifests in the registry: the job's manifest with the name, the label and the lineage of the version. A
promotion commits first and is published after the commit; when a worker dies in between, the duty publishes. A shadow
is a separate model, `NAME.shadow`; the manifest's member `shadow` names the served model. A model in the registry is
this plane's when its manifest has the label and the lineage of a version in the store. All other models are foreign:
the publisher neither removes nor replaces a foreign model.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Row, RowMapping, func, select

from runtime.logs import fields
from training.plane import event
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.duty import each
from training.plane.model_tables import models, versions
from training.plane.objects import ObjectMissingError, Objects, at_most
from training.plane.registry import ForeignModelError, Registry, RegistryError, text
from training.plane.schema import events, jobs

log = logging.getLogger(__name__)

SHADOW = ".shadow"
REFUSED: Final = "publish_refused"
"""The event of a version's job when a foreign model stands in the version's way."""


class Publisher:
    """Publishes the models of one store to one registry."""

    def __init__(self, store: Database, objects: Objects, registry: Registry, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._registry = registry
        self._clock = clock

    def everything(self) -> None:
        """Publish each model whose registry entry differs from its alias. Raises RegistryError, UndoneError."""
        with self._store.read() as connection:
            names = connection.execute(select(models.c.name).order_by(func.random())).scalars().all()
        failures = []

        def publish(name: str) -> None:
            try:
                self.publish(name)
            except RegistryError as error:
                failures.append(f"{name}: {error}")

        each(names, publish)
        if failures:
            raise RegistryError("; ".join(failures))

    def publish(self, name: str) -> None:
        """Make the entries of one model equal to its aliases. Raises RegistryError, ForeignModelError.

        Another worker may change and publish the aliases meanwhile: the last one to write looks at the aliases again.
        """
        published, aliases = None, self._aliases(name)
        while aliases != published:
            champion, shadow = (self._version(name, alias) for alias in (aliases.champion, aliases.shadow))
            self._entry(name, name, champion, {})
            beside = {"shadow": {"of": name, "share": aliases.shadow_share}}
            self._entry(name, f"{name}{SHADOW}", shadow, beside)
            published, aliases = aliases, self._aliases(name)

    def refuse_foreign(self, name: str, *, shadow: bool) -> None:
        """Raises ForeignModelError where a promotion of the model could not be published; RegistryError."""
        entry = f"{name}{SHADOW}" if shadow else name
        present = self._registry.manifest(entry)
        if present is not None and not self._is_ours(name, present):
            raise ForeignModelError(entry)

    def _aliases(self, name: str) -> Row[Any, Any, Any]:
        found = select(models.c.champion, models.c.shadow, models.c.shadow_share).where(models.c.name == name)
        with self._store.read() as connection:
            return connection.execute(found).one()

    def _version(self, model: str, label: str) -> RowMapping | None:
        found = select(versions, jobs.c.recipe_sha256).join(jobs, jobs.c.id == versions.c.job)
        with self._store.read() as connection:
            same = (versions.c.name == model, versions.c.label == label)
            return connection.execute(found.where(*same)).mappings().first()

    def _is_ours(self, model: str, manifest: bytes) -> bool:
        """Whether a version of the model has the label and the lineage of the manifest."""
        try:
            present = json.loads(manifest)
        except ValueError:
            return False
        if not isinstance(present, dict) or not isinstance(present.get("version"), str):
            return False
        version = self._version(model, present["version"])
        return version is not None and present.get("lineage") == lineage(version)

    def _entry(self, model: str, name: str, version: RowMapping | None, extra: dict[str, Any]) -> None:
        """Make one entry of the model, `name`, equal to the version; without a version, take the entry away."""
        present = self._registry.manifest(name)
        foreign = present is not None and not self._is_ours(model, present)
        if version is None:
            if present is not None and not foreign:
                with contextlib.suppress(ForeignModelError):  # a person's copy of a version
                    self._registry.remove(name)
                    log.info("model taken from the registry", extra=fields(model=name))
            return
        # Which model runs in the shadow of which is this plane's to say, not the machine's that trained.
        trained = {member: value for member, value in version["manifest"].items() if member != "shadow"}
        manifest = {
            **trained,
            **extra,
            "name": name,
            "version": version["label"],
            "lineage": lineage(version),
        }
        if present == text(manifest):
            return
        files = version["files"]
        try:
            if foreign:
                raise ForeignModelError(name)
            self._registry.publish(name, manifest, lambda file: self._file(files[file]))
        except ObjectMissingError as error:
            raise RegistryError(f"a file of {version['label']} is gone") from error
        except ForeignModelError:
            self._tell_refused(name, version)
            raise
        log.info("model published", extra=fields(model=name, version=version["label"]))

    def _file(self, stored: Mapping[str, Any]) -> Iterator[bytes]:
        return at_most(self._objects.read(stored["key"]), stored["bytes"])

    def _tell_refused(self, name: str, version: RowMapping) -> None:
        """Write the event, once for each version and entry: the duty tries again and again."""
        told = {"model": name, "version": version["label"]}
        with self._store.begin() as connection:
            event.lock(connection, version["job"])
            same = (events.c.job == version["job"], events.c.kind == REFUSED)
            if told not in connection.execute(select(events.c.data).where(*same)).scalars().all():
                event.append(connection, version["job"], None, self._clock.now(), REFUSED, **told)
                log.warning("a foreign model is in the way", extra=fields(**told))


def lineage(version: RowMapping) -> dict[str, str]:
    """The origin of a version in short, for the manifest; the plane's API has the rest."""
    return {
        "job": version["job"],
        "dataset_sha256": version["dataset_sha256"],
        "recipe_sha256": version["recipe_sha256"],
    }
