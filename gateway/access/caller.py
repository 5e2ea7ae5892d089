"""The caller of a call, read from the call's metadata: client, request id, priority and trace.

Owns the reading of the metadata. The credential among them is auth.py's.
"""

import asyncio
from typing import NamedTuple, TypeAlias

from gateway.access.auth import Authenticator, Client, public_part
from market_inference.contract import metadata
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.validation.rules import quoted

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
"""A call's metadata, as received."""


class Caller(NamedTuple):
    """`client` is the authenticated client, or the error of the authentication.

    `request_id` is as the client sent it, unchecked; `credential` is the public part of a refused credential.
    """

    request_id: str | bytes
    priority: str
    traceparent: str
    client: Client | Exception
    credential: str

    @property
    def known(self) -> bool:
        """Whether the client is authenticated, and nothing else in the metadata is wrong."""
        return isinstance(self.client, Client)

    def admitted(self) -> Client:
        """The client. Raises UnauthenticatedError."""
        if isinstance(self.client, Exception):
            raise self.client
        return self.client


class Callers:
    """Reads metadata. Within one loop turn, calls with the same metadata share one look-up."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._known: dict[Metadata, Caller] = {}

    def of(self, received: Metadata) -> Caller:
        caller = self._known.get(received)
        if caller is None:
            caller = self._read(received)
            if isinstance(caller.client, Client):
                if not self._known:
                    asyncio.get_running_loop().call_soon(self._known.clear)
                self._known[received] = caller
        return caller

    def _read(self, received: Metadata) -> Caller:
        given, secrets = dict(received), metadata.secrets(received)
        client: Client | Exception
        try:
            client, credential = self._authenticator.authenticate(secrets), ""
        except Exception as error:  # noqa: BLE001 -- a bug is reported like an error, see calls/completion.py
            client, credential = error, public_part(secrets)
        priority = str(given.get(metadata.PRIORITY, metadata.PRIORITIES[0]))
        if priority not in metadata.PRIORITIES:
            if isinstance(client, Client):
                # A typing error would otherwise turn batch work into interactive work.
                what = f"one of {', '.join(metadata.PRIORITIES)} (got {quoted(priority)})"
                client = InvalidRequestError([Violation(metadata.PRIORITY, what, "string.in")])
            priority = metadata.PRIORITIES[0]
        return Caller(
            given.get(metadata.REQUEST_ID, ""),
            priority,
            str(given.get(metadata.TRACEPARENT, "")),
            client,
            credential,
        )
