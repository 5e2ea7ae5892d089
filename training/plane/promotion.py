"""Promotions: the version of a model in service, the version in the shadow, and the history of both.

Owns the aliases in `models` and the rows of `promotions`. A change is one transaction: the alias, and one row of
history with author, cause and reason. The history is append-only. publisher.py makes the registry equal to the aliases.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, RowMapping, insert, select, update

from training.plane import database, versions
from training.plane.errors import ConflictError
from training.plane.model_tables import models, promotions

DEFAULT_SHARE: Final = 0.1


class Action(StrEnum):
    """What a row of history says."""

    PROMOTE = "promote"
    SHADOW = "shadow"
    ROLLBACK = "rollback"
    UNSHADOW = "unshadow"


class Cause(StrEnum):
    """The origin of a change: a person, or the watchdog."""

    PERSON = "person"
    WATCHDOG = "watchdog"


@dataclass(frozen=True, slots=True)
class Author:
    """The name of a credential, and the holder's reason."""

    name: str
    reason: str
    cause: Cause = Cause.PERSON


def promote(
    connection: Connection, model: RowMapping, version: RowMapping, author: Author, now: float, watch_seconds: float
) -> None:
    """Make the version the champion.

    Raises ConflictError for a version without a passed gate against the present champion.
    """
    locked = _locked(connection, model["name"])
    version = versions.locked(connection, version["id"])
    if not versions.may_be_promoted(version):
        raise ConflictError(f"the version is {version['state']}; the gate must have let a version pass")
    if locked["champion"] == version["label"]:
        raise ConflictError(f"{version['label']} is the champion already")
    if (rival := versions.judged_against(connection, version)) != locked["champion"]:
        raise ConflictError(
            f"the gate has compared {version['label']} with {rival or 'the configured model'}, and "
            f"{locked['champion'] or 'the configured model'} is in service now: have the version judged again"
        )
    shadow = {"shadow": "", "shadow_share": 0.0} if locked["shadow"] == version["label"] else {}
    watched = {"watched_until": now + watch_seconds, "watched": None}
    _set(connection, locked, champion=version["label"], **watched, **shadow)
    _append(connection, locked, Action.PROMOTE, locked["champion"], version["label"], author, now)


def shadow(
    connection: Connection, model: RowMapping, version: RowMapping | None, share: float, author: Author, now: float
) -> None:
    """Run the version beside the champion on a share of the requests, unseen by callers; None ends the shadow.

    Raises ConflictError for a version that the gate has rejected.
    """
    locked = _locked(connection, model["name"])
    if version is None:
        if not locked["shadow"]:
            raise ConflictError("no version runs in the shadow")
        _set(connection, locked, shadow="", shadow_share=0.0)
        _append(connection, locked, Action.UNSHADOW, locked["shadow"], "", author, now)
        return
    if version["state"] in {versions.JUDGING, versions.FAILED, "rejected"}:
        raise ConflictError(f"the version is {version['state']}")
    if version["label"] == locked["champion"]:
        raise ConflictError(f"{version['label']} is the champion")
    _set(connection, locked, shadow=version["label"], shadow_share=share)
    _append(connection, locked, Action.SHADOW, locked["shadow"], version["label"], author, now)


def rollback(connection: Connection, name: str, author: Author, now: float, expected: str | None = None) -> str:
    """Bring the champion before the present one back; its label, empty for the configured model.

    `expected`: the only champion to replace, since the watchdog judges one version. Raises ConflictError.
    """
    locked = _locked(connection, name)
    if expected is not None and locked["champion"] != expected:
        raise ConflictError(f"{expected} is not the champion any more")
    if not locked["champion"]:
        raise ConflictError("no version was promoted: the configured model is in service")
    before = previous(connection, name)
    _set(connection, locked, champion=before, watched_until=None, watched=None)
    _append(connection, locked, Action.ROLLBACK, locked["champion"], before, author, now)
    return before


def previous(connection: Connection, name: str) -> str:
    """The champion before the present one: a second rollback goes further back.

    The history is a stack: a promotion pushes the replaced champion, a rollback pops.
    """
    moves = (Action.PROMOTE, Action.ROLLBACK)
    found = select(promotions.c.action, promotions.c.before)
    found = found.where(promotions.c.name == name, promotions.c.action.in_(moves)).order_by(promotions.c.seq)
    replaced: list[str] = []
    for action, before in connection.execute(found):
        if action == Action.PROMOTE:
            replaced.append(before)
        elif replaced:
            replaced.pop()
    return replaced[-1] if replaced else ""


def history(connection: Connection, name: str, limit: int) -> list[RowMapping]:
    """The rows of the model, the newest first."""
    found = select(promotions).where(promotions.c.name == name).order_by(promotions.c.seq.desc()).limit(limit)
    return list(connection.execute(found).mappings())


def of_version(connection: Connection, name: str, label: str) -> list[RowMapping]:
    """The first promotions of the version, the oldest first."""
    found = select(promotions).where(promotions.c.name == name, promotions.c.after == label)
    return list(connection.execute(found.order_by(promotions.c.seq).limit(500)).mappings())


def _locked(connection: Connection, name: str) -> RowMapping:
    """The row of the model, locked until the end of the transaction: two swaps take turns."""
    return database.one(connection, select(models).where(models.c.name == name).with_for_update(), "model", name)


def _set(connection: Connection, model: RowMapping, **values: object) -> None:
    connection.execute(update(models).where(models.c.name == model["name"]).values(**values))


def _append(
    connection: Connection, model: RowMapping, action: Action, before: str, after: str, author: Author, now: float
) -> None:
    row = {
        "name": model["name"], "action": action, "before": before, "after": after, "at": now, "author": author.name,
        "cause": author.cause, "reason": author.reason,
    }  # fmt: skip
    connection.execute(insert(promotions).values(**row))
