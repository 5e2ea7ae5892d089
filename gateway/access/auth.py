"""Authentication and authorisation of clients.

Owns the reading of credentials from metadata, the clients of credentials, and the check of scopes. The form of a key is
market_inference/contract/keys.py's, tokens are tokens.py's.
"""

import asyncio
import logging
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from gateway.access.tokens import Token, Tokens
from market_inference.contract import keys, metadata
from market_inference.contract.errors import PermissionDeniedError, UnauthenticatedError
from market_inference.contract.methods import Method
from runtime.logs import fields
from runtime.watched import Watched

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated client. Limits are in units; 0 stands for the gateway's limit."""

    name: str
    scopes: frozenset[str]
    units_per_second: float = 0.0
    units_per_day: float = 0.0


ANONYMOUS = Client("", frozenset())
"""The client of a call that is not authenticated (yet)."""


class Keyring:
    """The keys of a file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError, as keys.read() does."""
        self._path = path
        self._watched = Watched([path])
        self._keys = keys.Keys(keys.read(path))

    def find(self, secret: str) -> keys.Key | None:
        return self._keys.find(secret)

    async def look(self) -> None:
        """Read the file when it has changed.

        A broken or deleted file leaves the keys unchanged, and raises ValueError or OSError at every look.
        """
        if await self._watched.changed():
            self._keys = keys.Keys(await asyncio.to_thread(keys.read, self._path))
            self._watched.used()
            log.info("keys read again", extra=fields(keys=len(self._keys)))


class Authenticator:
    """Checks credentials: API keys, and tokens where an issuer is configured."""

    def __init__(self, known: Keyring | keys.Keys, tokens: Tokens | None = None) -> None:
        self._keys = known
        self._tokens = tokens
        self._clients: dict[str, tuple[keys.Key, Client]] = {}

    def authenticate(self, secrets: Set[str]) -> Client:
        """The client of the metadata's credential. Raises UnauthenticatedError."""
        if not secrets:
            raise UnauthenticatedError("no API key: send metadata `authorization: Bearer <key>` or `x-api-key: <key>`")
        if len(secrets) > 1:
            raise UnauthenticatedError(metadata.SEVERAL_CREDENTIALS)
        (secret,) = secrets
        if self._tokens is not None and secret.count(".") == 2:
            return _of_token(self._tokens.verify(secret))
        key = self._keys.find(secret)
        if key is None:
            raise UnauthenticatedError("the API key is not valid: it is wrong, revoked or expired")
        return self._of_key(key)

    def _of_key(self, key: keys.Key) -> Client:
        """The client of a key, made once per key."""
        known = self._clients.get(key.prefix)
        if known is None or known[0] is not key:
            client = Client(key.owner, frozenset(key.scopes), key.units_per_second, key.units_per_day)
            known = self._clients[key.prefix] = (key, client)
        return known[1]


def _of_token(token: Token) -> Client:
    """The prefix keeps a token's subject apart from the owners of keys."""
    return Client(f"jwt:{token.subject}", token.scopes)


def authorise(client: Client, method: Method) -> None:
    """Raises PermissionDeniedError when the client lacks the method's scope."""
    if method.scope not in client.scopes:
        raise PermissionDeniedError(f"the credential lacks the scope {method.scope!r}, which {method.name} needs")


def public_part(secrets: Iterable[str]) -> str:
    """The part of the credentials that may be logged: a key's public prefix, or nothing."""
    return " ".join(sorted(filter(None, map(keys.public_part, secrets))))
