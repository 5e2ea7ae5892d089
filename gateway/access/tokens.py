"""JSON Web Tokens (RFC 7519) signed by keys of a key set (RFC 7517): RS256, ES256 or EdDSA, nothing else.

Owns the checks of a token and the renewal of the key set. The rights of a client are auth.py's.

The key decides the algorithm, and the token only names the algorithm: `none`, HMAC under a public key and the other
confusions of RFC 8725 are impossible.
"""

import asyncio
import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from gateway.access.fetch import FetchError, fetch
from market_inference.contract.errors import UnauthenticatedError
from market_inference.contract.regular_file import opened
from runtime.logs import fields
from runtime.watched import Watched
from runtime.watcher import LookError

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
CLOCK_SKEW_SECONDS = 30.0
REFRESH_SECONDS = 300.0
# An unknown key asks for a renewal, at most once in this time, however many tokens name unknown keys.
SOONEST_REFRESH_SECONDS = 10.0
FETCH_SECONDS = 10.0
MAX_KEY_SET_BYTES = 1 << 20
MOST_KEYS = 256
MOST_KEY_ID_CHARACTERS = 256
# RFC 7518, section 3.3.
LEAST_RSA_BITS = 2048
MOST_SUBJECT_CHARACTERS = 256
_CACHED = 4096
_CLAIMS = ("exp", "iss", "aud", "sub")


class KeySetError(LookError):
    """The key set cannot be fetched or read."""


@dataclass(frozen=True, slots=True)
class Token:
    """The content of a valid token. `expires` is a Unix time."""

    subject: str
    scopes: frozenset[str]
    expires: float


class Tokens:
    """Verifies tokens of one issuer for one audience. `source` is a file or an https URL of a JWKS document.

    `copy`: a file for the last good document, from which a new worker process starts while the source is away.
    """

    def __init__(self, source: str, *, issuer: str, audience: str, copy: Path | None = None) -> None:
        self._source = source
        self._copy = copy
        self._issuer = issuer
        self._audience = audience
        self._keys: dict[str, jwt.PyJWK] = {}
        self._known: dict[bytes, Token] = {}
        self._watched = None if _is_url(source) else Watched([Path(source)])
        self._fetched = -math.inf
        self._failing = False
        # A token named a key that is not in the key set.
        self._wanted = False

    def verify(self, token: str) -> Token:
        """The token's content. Raises UnauthenticatedError."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._check(token)
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[digest] = known
        elif known.expires + CLOCK_SKEW_SECONDS <= time.time():
            del self._known[digest]
            raise UnauthenticatedError("the token has expired")
        return known

    def _check(self, token: str) -> Token:
        try:
            key = self._key(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": list(_CLAIMS)},
            )
            subject = str(claims["sub"])
            if not (0 < len(subject) <= MOST_SUBJECT_CHARACTERS and subject.isprintable()):
                # The name goes into log lines and Redis' keys; half a surrogate pair has no form in UTF-8.
                raise UnauthenticatedError(
                    f"the token's subject must be 1 to {MOST_SUBJECT_CHARACTERS} printable characters"
                )
            return Token(subject, _scopes(claims), float(claims["exp"]))
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("the token has expired") from error
        except jwt.InvalidAudienceError as error:
            raise UnauthenticatedError("the token is for another audience") from error
        except jwt.InvalidIssuerError as error:
            raise UnauthenticatedError("the token is of another issuer") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise UnauthenticatedError("the token is not valid") from error

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        if header.get("alg") not in ALGORITHMS:
            raise UnauthenticatedError(f"the token's algorithm is not one of {', '.join(ALGORITHMS)}")
        key = self._keys.get(str(header.get("kid", "")))
        if key is None:
            self._wanted = True
            raise UnauthenticatedError("the token is signed by a key that is not in the key set")
        return key

    async def look(self) -> None:
        """Renew the key set when due: for a changed file, at intervals from a URL, and after an unknown key.

        Raises KeySetError, and OSError for a missing file.
        After a failure the last good key set stays: an identity provider that is away must not lock out every client.
        """
        since = time.monotonic() - self._fetched
        due = await self._watched.changed() if self._watched is not None else since >= REFRESH_SECONDS
        if due or self._failing or (self._wanted and since >= SOONEST_REFRESH_SECONDS):
            await self.refresh()

    async def start(self) -> None:
        """Fetch the key set, or take the copy of another worker; look() tries again then. Raises KeySetError."""
        try:
            await self.refresh()
        except KeySetError as error:
            if self._copy is None:
                raise
            try:
                self._keys = key_set(_read(self._copy))
            except (KeySetError, OSError):  # no copy helps, and the reason is the source's
                raise error from None
            log.error("key set away, copy read", extra=fields(reason=str(error), keys=len(self._keys)))  # noqa: TRY400

    async def refresh(self) -> None:
        """Fetch the key set now. Raises KeySetError."""
        self._fetched, self._wanted, self._failing = time.monotonic(), False, True
        keys = await asyncio.to_thread(_fetch, self._source, self._copy)
        # Tokens signed by a removed key are no longer valid, so the known tokens go with the old set.
        self._keys, self._known, self._failing = keys, {}, False
        if self._watched is not None:
            self._watched.used()
        log.info("key set read", extra=fields(keys=len(keys)))


@contextmanager
def copy_for_workers(source: str) -> Iterator[str]:
    """The path of a copy for worker processes, in a folder that only this user reads; "" without a source."""
    if not source:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="key-set-") as folder:
        yield f"{folder}/jwks.json"


def _fetch(source: str, copy: Path | None) -> dict[str, jwt.PyJWK]:
    try:
        url = _is_url(source)
        raw = fetch(source, seconds=FETCH_SECONDS, most_bytes=MAX_KEY_SET_BYTES) if url else _read(Path(source))
    except (FetchError, OSError) as error:
        raise KeySetError(str(error)) from error
    found = key_set(raw)
    if copy is not None:
        try:
            fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
            fresh.write_bytes(raw)
            fresh.replace(copy)
        except OSError as error:
            log.warning("key set not copied", extra=fields(reason=str(error)))
    return found


def _read(path: Path) -> bytes:
    with opened(path) as file:
        raw = file.read(MAX_KEY_SET_BYTES + 1)
    if len(raw) > MAX_KEY_SET_BYTES:
        raise KeySetError(f"too large (max {MAX_KEY_SET_BYTES} bytes)")
    return raw


def key_set(raw: bytes) -> dict[str, jwt.PyJWK]:
    """The usable keys of a JWKS document, by id. Unusable keys are left out (RFC 7517, section 5).

    Raises KeySetError for a document that is no key set, and for a key set without a usable key.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise KeySetError(f"no JSON: {error}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise KeySetError(f"no key set: `keys` must be a list of at most {MOST_KEYS} keys")
    found, reasons = {}, set()
    for entry in entries:
        try:
            key = _usable(entry)
        except KeySetError as error:
            reasons.add(str(error))
        else:
            found[str(key.key_id)] = key
    why = "; ".join(sorted(reasons))
    if not found:
        raise KeySetError(f"no usable key among {len(entries)}: {why or 'a key set needs a key'}")
    if len(found) < len(entries):
        log.warning(
            "keys of the key set left out",
            extra=fields(usable=len(found), keys=len(entries), reason=why or "two keys have the same `kid`"),
        )
    return found


def _usable(entry: object) -> jwt.PyJWK:
    """The key of an entry; KeySetError states the reason against a key that verifies no token."""
    if not isinstance(entry, dict):
        raise KeySetError("a key must be an object")
    identifier = entry.get("kid")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= MOST_KEY_ID_CHARACTERS:
        raise KeySetError(f"a key needs a `kid` of 1 to {MOST_KEY_ID_CHARACTERS} characters")
    if entry.get("use", "sig") != "sig":
        raise KeySetError("the `use` of a key must be `sig`")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeySetError("the `key_ops` of a key must contain `verify`")
    try:
        key = jwt.PyJWK.from_dict(entry)
    except Exception:  # noqa: BLE001 -- the library raises many kinds for odd members; the other keys may be good
        raise KeySetError("a key has members that cannot be read") from None
    if key.algorithm_name not in ALGORITHMS:
        raise KeySetError(f"the algorithm of a key must be one of {', '.join(ALGORITHMS)}")
    if key.algorithm_name == "RS256" and key.key.key_size < LEAST_RSA_BITS:
        raise KeySetError(f"an RSA key needs at least {LEAST_RSA_BITS} bits")
    return key


def _is_url(source: str) -> bool:
    """Raises ValueError for a URL without TLS to another machine: the keys could be exchanged on the way."""
    parts = urlsplit(source)
    if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ValueError("a key set must be fetched by https")
    return parts.scheme in {"http", "https"}


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` of RFC 8693, words in a string, or `scp`, a list, as some issuers send it."""
    found = claims.get("scope", claims.get("scp", ()))
    return frozenset(found.split() if isinstance(found, str) else map(str, found))
