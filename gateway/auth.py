"""Who is calling, and may they.

Owns the reading of credentials from metadata and the check of scopes. What a key is, is keys.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.keys import Keys
from wire import metadata
from wire.contract import Method
from wire.errors import PermissionDeniedError, UnauthenticatedError


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller."""

    name: str
    scopes: frozenset[str]


class Authenticator:
    """Checks credentials against the keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def authenticate(self, sent: Mapping[str, str | bytes]) -> Client:
        """The caller behind the metadata's credential. Raises UnauthenticatedError."""
        secret = _credential(sent)
        if not secret:
            raise UnauthenticatedError("no API key: send metadata `authorization: Bearer <key>` or `x-api-key: <key>`")
        key = self._keys.find(secret)
        if key is None:
            raise UnauthenticatedError("the API key is not valid: it is wrong, revoked or expired")
        return Client(key.owner, frozenset(key.scopes))


def authorise(client: Client, method: Method) -> None:
    """Raises PermissionDeniedError when the client lacks the method's scope."""
    if method.scope not in client.scopes:
        raise PermissionDeniedError(f"the API key lacks the scope {method.scope!r}, which {method.name} needs")


def _credential(sent: Mapping[str, str | bytes]) -> str:
    given = sent.get(metadata.API_KEY) or ""
    if not given:
        scheme, _, given = str(sent.get(metadata.AUTHORIZATION, "")).partition(" ")
        if scheme.lower() != "bearer":
            return ""
    return given.strip() if isinstance(given, str) else ""
