"""The caller of an HTTP request: credential, request id, priority, trace.

Owns the way from HTTP headers to the metadata of the call to the gateway. The edge checks no credential: it passes the
caller's on, and the gateway decides.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from market_inference.contract import metadata

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(slots=True, eq=False)
class Caller:
    """`credential`: the value of the gateway's metadata `authorization`, empty for none. `names`: field paths of the
    contract -> names in the caller's JSON, for errors. `reason`: of a failure, for log and metrics. `bytes_in`: of the
    body so far; `bytes_held`: those that the budget of bytes in work counts; `answer_held`: the memory that the budget
    of answers counts. `receive`: the next message of the client;
    after the body, the next message is the departure. `counted_as`: the client whose place the request has taken, None
    for a request that takes no place. `several`: different credentials came, and none counts.
    `own`: the credential is the key of this machine's user, and not sent by the caller.
    """

    request_id: str
    credential: str
    traceparent: str
    priority: str = ""
    names: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    code: str = "OK"
    bytes_in: int = 0
    bytes_held: int = 0
    answer_held: int = 0
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]] | None = None
    counted_as: str | None = None
    several: bool = False
    own: bool = False

    async def departed(self) -> None:
        """Return when the client has closed the connection; never without `receive`. Called once the body is read."""
        if self.receive is None:
            await asyncio.Event().wait()
        else:
            while (await self.receive())["type"] != "http.disconnect":
                pass

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The metadata of a call to the gateway."""
        made = [(metadata.REQUEST_ID, self.request_id)]
        if self.credential:
            made.append((metadata.AUTHORIZATION, self.credential))
        if self.priority:
            made.append((metadata.PRIORITY, self.priority))
        if self.traceparent:
            made.append((metadata.TRACEPARENT, self.traceparent))
        return made

    @property
    def key(self) -> str:
        """The secret without its scheme."""
        return self.credential.partition(" ")[2]


def read(headers: Iterable[tuple[bytes, bytes]], own_key: str) -> Caller:
    """The caller of a request; `own_key` serves requests without a credential whose Host is this machine's loopback.

    The check of Host keeps a name that another site points at 127.0.0.1 (DNS rebinding) from using the key.
    """
    sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    found, several = dict(sent), len(metadata.secrets(sent)) > 1
    credential = _printable(found.get(metadata.AUTHORIZATION, "")) or bearer(found.get(metadata.API_KEY, ""))
    if several or credential.lower() == "bearer":  # an unset variable in `Bearer $KEY`
        credential = ""
    own = not credential and not several and bool(own_key) and host_of(found.get("host", "")) in LOOPBACK_HOSTS
    if own:
        credential = bearer(own_key)
    return Caller(
        metadata.request_id(found.get(metadata.REQUEST_ID)),
        credential,
        _printable(found.get(metadata.TRACEPARENT, "")),
        priority=_printable(found.get(metadata.PRIORITY, "")),
        several=several,
        own=own,
    )


def bearer(key: str) -> str:
    """The credential of a key, "" for text that no key is."""
    text = _printable(key)
    return f"Bearer {text}" if text else ""


def host_of(authority: str) -> str:
    """The host of "host:port", in lower case."""
    host, colon, port = authority.rpartition(":")
    return (host if colon and port.isdecimal() else authority).lower()


def is_foreign(origin: str, authority: str, allowed: Iterable[str]) -> bool:
    """Whether the page that called belongs to another site, and the configuration does not name that site."""
    return origin.partition("://")[2].lower() != authority.lower() and origin not in allowed


def _printable(value: str) -> str:
    """The value if gRPC can carry it as metadata, else empty: the gateway then answers UNAUTHENTICATED."""
    text = value.strip()
    return text if text.isascii() and text.isprintable() and len(text) <= 8192 else ""
