"""What a call's metadata say: who sends it, under which id, how urgent it is, and the trace that it belongs to.

Owns the reading of metadata, but for the credential in it, which is auth.py's.
"""

import asyncio
from typing import NamedTuple, TypeAlias

from gateway.access.auth import Authenticator, Client, public_part
from market_inference.contract import metadata

Sent: TypeAlias = tuple[tuple[str, str | bytes], ...]
"""A call's metadata, as they came."""


class Caller(NamedTuple):
    """`request_id` as asked for, whatever it is; the client, or why there is none; and then what may be told of it."""

    request_id: str | bytes
    priority: str
    traceparent: str
    client: Client | Exception
    credential: str

    def admitted(self) -> Client:
        """Raises UnauthenticatedError."""
        if isinstance(self.client, Exception):
            raise self.client
        return self.client


class Callers:
    """Reads metadata. Calls of one loop turn with the same have the same caller, who is looked up once."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._known: dict[Sent, Caller] = {}

    def of(self, sent: Sent) -> Caller:
        caller = self._known.get(sent)
        if caller is None:
            caller = self._read(sent)
            if isinstance(caller.client, Client):
                if not self._known:
                    asyncio.get_running_loop().call_soon(self._known.clear)
                self._known[sent] = caller
        return caller

    def _read(self, sent: Sent) -> Caller:
        given = dict(sent)
        client: Client | Exception
        try:
            client, credential = self._authenticator.authenticate(given), ""
        except Exception as error:  # noqa: BLE001 -- a bug is an end, too, and is told as one
            client, credential = error, public_part(given)
        return Caller(
            given.get(metadata.REQUEST_ID, ""),
            # `batch` when asked for.
            "batch" if given.get(metadata.PRIORITY) == "batch" else "interactive",
            str(given.get(metadata.TRACEPARENT, "")),
            client,
            credential,
        )
