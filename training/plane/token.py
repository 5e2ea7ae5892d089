"""Tokens of pods: one kind downloads a dataset once, the other speaks for one attempt of a job.

Owns issuing, consuming, and revoking. A token is 32 random bytes in base64url; the store holds the SHA-256 alone, and
the look-up by digest leaves no timing to measure.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from training.plane.errors import LimitReachedError, OverloadedError, TokenRefusedError, Violation
from training.plane.schema import tokens

DOWNLOAD: Final = "download"
JOB: Final = "job"
LIFETIME_SECONDS: Final = 2 * 3600.0
LARGE_LIFETIME_SECONDS: Final = 6 * 3600.0
LARGE_BYTES: Final = 5_000_000_000
MOST_DOWNLOADS: Final = 100
"""Download tokens of an attempt: each try of a download takes one."""
MOST_OF_DATASET: Final = 1000
"""Download tokens that the owner of a dataset has asked for, until the sweep deletes these a day after their end."""
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Holder:
    """The attempt that a job token speaks for."""

    owner: str
    job: str
    attempt: int


def lifetime(size: int) -> float:
    """How long a download token for so many bytes is valid, in seconds."""
    return LARGE_LIFETIME_SECONDS if size > LARGE_BYTES else LIFETIME_SECONDS


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def issue(connection: Connection, kind: str, owner: str, now: float, expires_at: float, **bound: Any) -> str:
    """A new token, returned once and stored as a digest. `bound` names the dataset, the job, the attempt."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    row = {"digest": digest(token), "kind": kind, "owner": owner, "created_at": now, "expires_at": expires_at, **bound}
    connection.execute(insert(tokens).values(**row))
    return token


def issue_download(connection: Connection, holder: Holder, dataset: str, now: float, expires_at: float) -> str:
    """A download token for the machine of an attempt. Raises LimitReachedError."""
    if _count(connection, tokens.c.job == holder.job, tokens.c.attempt == holder.attempt) >= MOST_DOWNLOADS:
        raise LimitReachedError.at("tokens", MOST_DOWNLOADS, "download tokens of an attempt")
    bound = {"dataset": dataset, "job": holder.job, "attempt": holder.attempt}
    return issue(connection, DOWNLOAD, holder.owner, now, expires_at, **bound)


def issue_to_owner(connection: Connection, owner: str, dataset: str, now: float, expires_at: float) -> str:
    """A download token for the owner of a dataset. Raises OverloadedError."""
    if _count(connection, tokens.c.dataset == dataset, tokens.c.job.is_(None)) >= MOST_OF_DATASET:
        text = f"at most {MOST_OF_DATASET} download tokens of a dataset, until a day after their end"
        raise OverloadedError(text, Violation("tokens", text, MOST_OF_DATASET), retry_after=3600.0)
    return issue(connection, DOWNLOAD, owner, now, expires_at, dataset=dataset)


def _count(connection: Connection, *which: ColumnElement[bool]) -> int:
    found = select(func.count()).select_from(tokens).where(tokens.c.kind == DOWNLOAD, *which)
    return connection.execute(found).scalar_one()


def consume(connection: Connection, token: str, now: float) -> str:
    """The dataset that a download token is for; the token is used up. Of two callers at once one gets the dataset.

    Raises TokenRefusedError with one text for a wrong, expired, used and revoked token.
    """
    one = (tokens.c.digest == digest(token), tokens.c.kind == DOWNLOAD, *_valid(now), tokens.c.used_at.is_(None))
    row = connection.execute(update(tokens).where(*one).values(used_at=now).returning(tokens.c.dataset)).first()
    if row is None:
        raise TokenRefusedError
    return str(row.dataset)


def peek(connection: Connection, token: str, now: float) -> str:
    """As consume(), and the token stays usable."""
    one = (tokens.c.digest == digest(token), tokens.c.kind == DOWNLOAD, *_valid(now), tokens.c.used_at.is_(None))
    row = connection.execute(select(tokens.c.dataset).where(*one)).first()
    if row is None:
        raise TokenRefusedError
    return str(row.dataset)


def holder(connection: Connection, token: str, now: float) -> Holder:
    """The attempt that a job token speaks for. Raises TokenRefusedError."""
    one = (tokens.c.digest == digest(token), tokens.c.kind == JOB, *_valid(now))
    row = connection.execute(select(tokens.c.owner, tokens.c.job, tokens.c.attempt).where(*one)).first()
    if row is None:
        raise TokenRefusedError
    return Holder(row.owner, row.job, row.attempt)


def revoke(connection: Connection, now: float, **bound: Any) -> int:
    """End all tokens with these values, such as job and attempt, or dataset. The number of tokens ended."""
    same = [tokens.c[name] == value for name, value in bound.items()]
    ended = connection.execute(update(tokens).where(*same, tokens.c.revoked_at.is_(None)).values(revoked_at=now))
    return ended.rowcount


def _valid(now: float) -> tuple[Any, Any]:
    return tokens.c.revoked_at.is_(None), tokens.c.expires_at > now
