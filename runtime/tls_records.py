"""The TLS of a listening socket outside gRPC: OpenSSL gets a record at a time, and no more than a client needs.

Owns the limits that OpenSSL lacks; OpenSSL works on the event loop. A record with KeyUpdate has 27 bytes and costs some
80 microseconds, and OpenSSL handles all that have come in one call. A ClientHello of 62 KB costs 100 milliseconds,
since each group is compared with each key share.
"""

import ssl
from typing import Any, Final, cast

MOST_EMPTY: Final = 64
"""The most TLS records of a connection that give no data. A handshake takes three or four."""
HANDSHAKE_BYTES: Final = 8 << 10
"""The most bytes of a client in a handshake. A ClientHello has under 2 KB, under 4 KB with post-quantum key shares."""
_HEADER: Final = 5


class _Connection(ssl.SSLObject):
    """The TLS of a connection. OpenSSL reads from `inner`."""

    incoming: ssl.MemoryBIO
    inner: ssl.MemoryBIO
    _header = b""
    # Bytes that are missing of the record that OpenSSL has in part.
    _missing = 0
    _empty = 0
    _shaking = True
    _handshake_bytes = 0
    # 1 until the newest record gives data.
    _newest = 0

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 -- the name in ssl
        while True:
            try:
                data = super().read(len, buffer)
            except ssl.SSLWantReadError:
                self._feed()
            else:
                self._empty -= self._newest
                self._newest = 0
                return data

    def do_handshake(self) -> None:
        while True:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                self._feed()
            else:
                self._shaking = False
                return

    def unwrap(self) -> Any:
        while True:
            try:
                return super().unwrap()
            except ssl.SSLWantReadError:
                self._feed()

    def _feed(self) -> None:
        """Give OpenSSL bytes of one record.

        Raises SSLWantReadError when none have come, and SSLError above a limit.
        """
        if not self._missing:
            self._header += self.incoming.read(_HEADER - len(self._header))
            if len(self._header) < _HEADER:
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the header of a TLS record is incomplete")
            self._empty += 1
            self._newest = 1
            if self._empty > MOST_EMPTY:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"more than {MOST_EMPTY} TLS records without data")
            self._missing = int.from_bytes(self._header[-2:])
            if self._shaking:
                self._handshake_bytes += self._missing
                if self._handshake_bytes > HANDSHAKE_BYTES:
                    raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"more than {HANDSHAKE_BYTES} bytes in a handshake")
            self.inner.write(self._header)
            self._header = b""
        elif not self.incoming.pending:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "a TLS record is incomplete")
        self._missing -= self.inner.write(self.incoming.read(self._missing))


class ServerContext(ssl.SSLContext):
    """A connection above MOST_EMPTY or HANDSHAKE_BYTES ends with SSLError."""

    sslobject_class = _Connection

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **settings: Any) -> ssl.SSLObject:
        inner = ssl.MemoryBIO()
        made = cast("_Connection", super().wrap_bio(inner, outgoing, *args, **settings))
        made.incoming, made.inner = incoming, inner
        return made
