"""Routes of models: versions with their verdicts, promotion, shadow, rollback, history and lineage."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field
from sqlalchemy import RowMapping, select

from gateway.access.auth import Client
from runtime.logs import fields
from training.plane import jobs, promotion, versions
from training.plane.errors import ConflictError, UnavailableError
from training.plane.model_tables import models as table
from training.plane.promotion import Author
from training.plane.registry import ForeignModelError, RegistryError
from training.plane.routes.parts import Body, Callers, Id, PageSize, quick_routes, shown
from training.plane.schema import attempts
from training.plane.services import Services

log = logging.getLogger(__name__)

_MODEL = ("name", "kind", "champion", "shadow", "shadow_share", "watched_until", "created_at")
_VERSION = (
    "name",
    "number",
    "label",
    "state",
    "job",
    "dataset",
    "dataset_sha256",
    "measures",
    "created_at",
    "judged_at",
)
_PROMOTION = ("seq", "action", "before", "after", "at", "author", "cause", "reason")
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Name = Annotated[str, Path(pattern=versions.NAME)]
_LAST_NUMBER = 10**9
Number = Annotated[int, Query(ge=1, le=_LAST_NUMBER)]
Few = Annotated[int, Query(ge=1, le=100)]
"""Versions with their measures, up to 32 KiB each."""
Label = Annotated[str, Path(pattern=r"^[0-9a-f-]{1,20}$")]


class NewVersion(Body):
    """The job whose model becomes a version."""

    job: Id


class Promotion(Body):
    """The version by label or number, and why. In the shadow the version answers no caller."""

    version: str = Field(pattern=r"^[0-9a-f-]{1,20}$")
    reason: Reason
    shadow: bool = False
    share: float = Field(promotion.DEFAULT_SHARE, gt=0, le=1, description="of the requests, for a shadow")


class Why(Body):
    """Why."""

    reason: Reason


def router(services: Services) -> APIRouter:
    """The routes under /api/training/models."""
    routes = quick_routes(services, "/api/training/models", "models")
    callers = Callers(services)
    User = Annotated[Client, Depends(callers.user)]  # noqa: N806 -- a type
    Promoter = Annotated[Client, Depends(callers.promoter)]  # noqa: N806 -- a type
    store, clock, slow = services.store, services.clock, services.slow

    @routes.get("")
    def list_models(user: User, after: str = "", limit: PageSize = 500) -> dict[str, Any]:
        """The caller's models by name, with the version in service."""
        with store.read() as connection:
            mine = (table.c.owner == user.name, table.c.name > after)
            found = select(*(table.c[name] for name in _MODEL)).where(*mine).order_by(table.c.name).limit(limit)
            rows = connection.execute(found).mappings().all()
        return {"models": [shown(row, *_MODEL) for row in rows]}

    @routes.post("/{name}/versions", status_code=201)
    @slow.route()
    def register(name: Name, new: NewVersion, user: User) -> dict[str, Any]:
        """Make a version of a job's model; the gate judges the version soon. A second call answers the same version."""
        with store.read() as connection:
            job = jobs.get(connection, user.name, new.job)
            manifest, files = versions.manifest_of(connection, services.objects, job)
        with store.begin() as connection:
            image = "" if job["launcher"] == "process" else services.config.image
            row = versions.register(connection, name, job, manifest, files, clock.now(), image)
            return shown(row, *_VERSION)

    @routes.get("/{name}/versions")
    def list_versions(name: Name, user: User, before: Number = _LAST_NUMBER, limit: Few = 100) -> dict[str, Any]:
        """The versions of a model, the newest first."""
        with store.read() as connection:
            rows = versions.listed(connection, user.name, name, before, limit)
        return {"versions": [shown(row, *_VERSION) for row in rows]}

    @routes.get("/{name}/versions/{label}")
    def lineage(name: Name, label: Label, user: User) -> dict[str, Any]:
        """Everything that made a version: an answer's `model_version` is the label."""
        with store.read() as connection:
            row = versions.get(connection, user.name, name, label)
            job = jobs.get(connection, user.name, row["job"])
            tries = jobs.attempts_of(connection, row["job"])
            moves = promotion.of_version(connection, name, row["label"])
        return {
            **shown(row, *_VERSION, "report"),
            "recipe": job["recipe"],
            "recipe_sha256": job["recipe_sha256"],
            "base": _base(row, job),
            "files": {file: row["files"][file]["sha256"] for file in sorted(row["manifest"]["files"])},
            "image": row["image"],
            "machine": shown(tries[-1], *(name for name in _MACHINE if name in attempts.c)) if tries else {},
            "promotions": [shown(move, *_PROMOTION) for move in moves],
        }

    @routes.post("/{name}/versions/{label}/judge")
    def judge(name: Name, label: Label, user: User) -> dict[str, Any]:
        """Ask the gate again: the champion may have changed, or the gateway was away."""
        with store.begin() as connection:
            row = versions.get(connection, user.name, name, label)
            versions.judge_again(connection, row, clock.now())
            return shown(versions.get(connection, user.name, name, label), *_VERSION)

    @routes.post("/{name}/promote")
    @slow.route()
    def promote(name: Name, asked: Promotion, user: Promoter) -> dict[str, Any]:
        """Put a version that passed the gate into service, or let a version run in the shadow."""
        with store.read() as connection:
            versions.model(connection, user.name, name)
        _needs_registry(name, shadow=asked.shadow)
        author = Author(user.name, asked.reason)
        with store.begin() as connection:
            model = versions.model(connection, user.name, name)
            row = versions.get(connection, user.name, name, asked.version)
            if asked.shadow:
                promotion.shadow(connection, model, row, asked.share, author, clock.now())
            else:
                promotion.promote(connection, model, row, author, clock.now(), services.config.watch_seconds)
        return _published(name, user)

    @routes.delete("/{name}/shadow")
    @slow.route()
    def unshadow(name: Name, why: Why, user: Promoter) -> dict[str, Any]:
        """End the shadow."""
        with store.begin() as connection:
            model = versions.model(connection, user.name, name)
            promotion.shadow(connection, model, None, 0.0, Author(user.name, why.reason), clock.now())
        return _published(name, user)

    @routes.post("/{name}/rollback")
    @slow.route()
    def rollback(name: Name, why: Why, user: Promoter) -> dict[str, Any]:
        """Bring the champion before the present one back."""
        with store.begin() as connection:
            versions.model(connection, user.name, name)
            promotion.rollback(connection, name, Author(user.name, why.reason), clock.now())
        return _published(name, user)

    @routes.get("/{name}/history")
    def history(name: Name, user: User, limit: PageSize = 100) -> dict[str, Any]:
        """Every change of the model's aliases, the newest first."""
        with store.read() as connection:
            versions.model(connection, user.name, name)
            rows = promotion.history(connection, name, limit)
        return {"history": [shown(row, *_PROMOTION) for row in rows]}

    def _needs_registry(name: str, *, shadow: bool) -> None:
        """Refuse a promotion that could never be published. A registry that is away gets the promotion later."""
        if services.publisher is None:
            raise ConflictError("MARKET_TRAINING_REGISTRY names no registry to publish to")
        try:
            services.publisher.refuse_foreign(name, shadow=shadow)
        except ForeignModelError as error:
            raise ConflictError(str(error)) from None
        except RegistryError as error:
            log.warning("registry away", extra=fields(model=name, reason=str(error)))

    def _published(name: str, user: Client) -> dict[str, Any]:
        """The model as it is now. The alias is written; when the registry is away, the duty publishes later."""
        if services.publisher is not None:
            try:
                services.publisher.publish(name)
            except ForeignModelError as error:
                raise ConflictError(f"the change is recorded, and not published: {error}") from None
            except RegistryError as error:
                raise UnavailableError(
                    f"the change is recorded, and will be published: {error}", retry_after=5.0
                ) from None
        with store.read() as connection:
            return shown(versions.model(connection, user.name, name), *_MODEL)

    return routes


_MACHINE = ("name", "launcher", "offer", "created_at", "gone_at", "exit_code")


def _base(version: RowMapping, job: RowMapping) -> dict[str, Any]:
    """The weights that the training began with: a package with digests, or a hub id with its commit."""
    packaged: dict[str, Any] | None = version["manifest"].get("base")
    if packaged:
        return packaged
    return {name: job["recipe"][name] for name in ("base", "revision") if job["recipe"].get(name)}
