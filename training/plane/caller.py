"""Callers: the gateway's API keys and JSON Web Tokens for people, job tokens for pods.

Owns the check of scopes. Keys and JSON Web Tokens themselves belong to gateway/access.
"""

from collections.abc import Mapping

from gateway.access.auth import Authenticator, Client
from market_inference.contract import errors as contract
from market_inference.contract import metadata
from training.plane import token
from training.plane.database import Database
from training.plane.errors import InvalidRequestError, PermissionDeniedError, TokenRefusedError, UnauthenticatedError
from training.plane.schema import MOST_OWNER_CHARACTERS
from training.plane.token import Holder

RUN = "training:run"
BUDGET = "training:budget"
PROMOTE = "training:promote"


def client(authenticator: Authenticator, headers: Mapping[str, str], scope: str) -> Client:
    """The caller behind the credential. Raises UnauthenticatedError, PermissionDeniedError, InvalidRequestError."""
    try:
        found = authenticator.authenticate(metadata.secrets(headers.items()))
    except contract.UnauthenticatedError as error:
        raise UnauthenticatedError(error.message) from None
    if scope not in found.scopes:
        raise PermissionDeniedError(f"the credential lacks the scope {scope!r}")
    if len(found.name) > MOST_OWNER_CHARACTERS:
        text = f"the credential's name has {len(found.name)} characters, at most {MOST_OWNER_CHARACTERS} here"
        raise InvalidRequestError.at("owner", text, MOST_OWNER_CHARACTERS)
    return found


def pod(store: Database, headers: Mapping[str, str], job: str, now: float) -> Holder:
    """The attempt behind the request's job token. Raises TokenRefusedError, also for a token of another job."""
    with store.read() as connection:
        holder = token.holder(connection, bearer(headers), now)
    if job and holder.job != job:
        raise TokenRefusedError
    return holder


def bearer(headers: Mapping[str, str]) -> str:
    """The token of the header Authorization; empty without one."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""
