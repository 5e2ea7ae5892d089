"""JSON Web Tokens (RFC 7519) signed by keys of a key set (RFC 7517): RS256, ES256 or EdDSA, nothing else.

Owns the checks of a token and the key set's renewal. What a client may do is auth.py's.

A key decides its algorithm, the token only names it: `none`, HMAC under a public key and other confusions of RFC 8725
have nothing to work with.
"""

import asyncio
import hashlib
import logging
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from market_inference.contract.errors import UnauthenticatedError
from runtime.logs import fields
from runtime.watched import Watched

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
CLOCK_SKEW_SECONDS = 30.0
REFRESH_SECONDS = 300.0
# An unknown key asks for a renewal, but not more often than this, whatever callers send.
SOONEST_REFRESH_SECONDS = 10.0
FETCH_SECONDS = 5.0
MAX_KEY_SET_BYTES = 1 << 20
_CACHED = 4096
_CLAIMS = ("exp", "iss", "aud", "sub")


class KeySetError(Exception):
    """The key set cannot be had or read."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a valid token says. `expires` is a Unix time."""

    subject: str
    scopes: frozenset[str]
    expires: float


class Tokens:
    """Verifies tokens of one issuer for one audience. `source` is a file or an https URL of a JWKS document."""

    def __init__(self, source: str, *, issuer: str, audience: str) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._keys: dict[str, jwt.PyJWK] = {}
        self._known: dict[bytes, Token] = {}
        self._watched = None if _is_url(source) else Watched([Path(source)])
        self._fetched = -SOONEST_REFRESH_SECONDS
        self._wanted = asyncio.Event()

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
            return Token(str(claims["sub"]), _scopes(claims), float(claims["exp"]))
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("the token has expired") from error
        except jwt.InvalidAudienceError as error:
            raise UnauthenticatedError("the token is for another audience") from error
        except jwt.InvalidIssuerError as error:
            raise UnauthenticatedError("the token is of another issuer") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise UnauthenticatedError("the token is not valid") from error

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        if header.get("alg") not in ALGORITHMS:
            raise UnauthenticatedError(f"the token's algorithm is not one of {', '.join(ALGORITHMS)}")
        key = self._keys.get(str(header.get("kid", "")))
        if key is None:
            self._wanted.set()
            raise UnauthenticatedError("the token is signed by a key that is not in the key set")
        return key

    async def keep_fresh(self) -> None:
        """Renew the key set for ever: when the file changes, at intervals from a URL, and when an unknown key came."""
        while True:
            try:
                async with asyncio.timeout(1.0 if self._watched else REFRESH_SECONDS):
                    await self._wanted.wait()
                await asyncio.sleep(max(0.0, self._fetched + SOONEST_REFRESH_SECONDS - time.monotonic()))
            except TimeoutError:
                if self._watched and not self._watched.changed():
                    continue
            self._wanted.clear()
            try:
                await self.refresh()
            except KeySetError as error:
                # The last good set stays: an identity provider that is away must not lock everyone out.
                log.error("key set not renewed", extra=fields(reason=str(error)))  # noqa: TRY400 -- no bug

    async def refresh(self) -> None:
        """Fetch the key set now. Raises KeySetError."""
        self._fetched = time.monotonic()
        keys = await asyncio.to_thread(_fetch, self._source)
        # What a removed key has signed is no longer valid, so the known tokens go with the old set.
        self._keys, self._known = keys, {}
        log.info("key set read", extra=fields(keys=len(keys)))


def _fetch(source: str) -> dict[str, jwt.PyJWK]:
    try:
        if _is_url(source):
            with urllib.request.urlopen(source, timeout=FETCH_SECONDS) as answer:  # noqa: S310 -- https, see _is_url
                raw = answer.read(MAX_KEY_SET_BYTES + 1)
        else:
            raw = Path(source).read_bytes()
        if len(raw) > MAX_KEY_SET_BYTES:
            raise KeySetError("the key set is too large")
        found = jwt.PyJWKSet.from_json(raw.decode()).keys
    except Exception as error:  # whatever a server may send instead of a key set
        raise KeySetError(f"{type(error).__name__}: {error}") from error
    return {key.key_id: key for key in found if key.key_id and key.algorithm_name in ALGORITHMS}


def _is_url(source: str) -> bool:
    """Raises ValueError for a URL over which anyone on the way could exchange the keys."""
    parts = urlsplit(source)
    if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ValueError("a key set must be fetched by https")
    return parts.scheme in {"http", "https"}


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` of RFC 8693, words in a string, or `scp`, a list, as some issuers send it."""
    found = claims.get("scope", claims.get("scp", ()))
    return frozenset(found.split() if isinstance(found, str) else map(str, found))
