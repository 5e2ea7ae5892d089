"""The TLS of a listening socket outside gRPC: OpenSSL gets a record at a time, and few records without data.

Owns the limit of KeyUpdate. A record with KeyUpdate has 27 bytes and costs OpenSSL some 80 microseconds; OpenSSL has no
limit for such records, and handles all that have come in one call: one client could hold the event loop for seconds.
"""

import ssl
from typing import Any, Final, cast

MOST_EMPTY: Final = 64
"""The most TLS records of a connection that give no data. A handshake takes three or four."""
_HEADER: Final = 5


class _Connection(ssl.SSLObject):
    """The TLS of a connection. OpenSSL reads from `inner`."""

    incoming: ssl.MemoryBIO
    inner: ssl.MemoryBIO
    _header = b""
    # Bytes that are missing of the record that OpenSSL has in part.
    _missing = 0
    _empty = 0
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
                return super().do_handshake()
            except ssl.SSLWantReadError:
                self._feed()

    def unwrap(self) -> Any:
        while True:
            try:
                return super().unwrap()
            except ssl.SSLWantReadError:
                self._feed()

    def _feed(self) -> None:
        """Give OpenSSL bytes of one record.

        Raises SSLWantReadError when none have come, and SSLError for too many records without data.
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
            self.inner.write(self._header)
            self._header = b""
        elif not self.incoming.pending:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "a TLS record is incomplete")
        self._missing -= self.inner.write(self.incoming.read(self._missing))


class ServerContext(ssl.SSLContext):
    """A connection with more than MOST_EMPTY records without data ends with SSLError."""

    sslobject_class = _Connection

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **settings: Any) -> ssl.SSLObject:
        inner = ssl.MemoryBIO()
        made = cast("_Connection", super().wrap_bio(inner, outgoing, *args, **settings))
        made.incoming, made.inner = incoming, inner
        return made
