"""TLS for both hops: certificates from files, read again when they change.

Owns the conversion of PEM files to gRPC credentials. Each service's configuration decides who presents a certificate.
"""

import asyncio
import contextlib
import inspect
import logging
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from market_inference.contract.regular_file import opened
from runtime.logs import fields
from runtime.tls_records import ServerContext
from runtime.watched import Watched
from runtime.watcher import LookError, Watcher

log = logging.getLogger(__name__)

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_OUT_OF_DATE = (9, 10)


class TlsError(LookError):
    """A file cannot be read, or a certificate is given without its key."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: a certificate chain with its key, and the authorities (`ca`) of the other side's certificate."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise TlsError("a certificate needs its key, and a key its certificate")

    def __bool__(self) -> bool:
        return self.certificate is not None or self.ca is not None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.certificate, self.key, self.ca) if path is not None]


def server(files: Files) -> grpc.ServerCredentials:
    """Credentials of a listening socket. With `ca`, clients must present a signed certificate (mTLS). Raises TlsError.

    A new connection uses the files' present content; unreadable files leave the last good content in use.
    """
    if files.certificate is None:
        raise TlsError("a server needs a certificate")
    check(files)
    watched = Watched(files.paths)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            if not watched.changed_now():
                return None
            check(files)
            fresh = _configuration(files)
        except Exception as error:  # noqa: BLE001 -- in gRPC's thread: new connections keep the last good certificate
            log.error("certificates not read again", extra=fields(reason=str(error)))  # noqa: TRY400 -- no bug
            return None
        watched.used()
        log.info("certificates read again", extra=fields(file=files.certificate.name if files.certificate else ""))
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files),
        fetch,  # type: ignore[arg-type]  # gRPC documents that None keeps the last one; its stubs do not
        require_client_authentication=files.ca is not None,
    )


def check(files: Files) -> float:
    """The instant of time.time() at which the certificate expires; infinite without one.

    Raises TlsError for a file that is missing, no PEM, a key that does not belong to its certificate, or an expired
    certificate.
    """
    for path in files.paths:
        _read(path)  # OpenSSL would wait for the writer of a FIFO
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if files.ca is not None:
            context.load_verify_locations(cafile=files.ca)
        if files.certificate is None or files.key is None:
            return math.inf
        # The password is never asked for on a terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
        return _expiry(context, files.certificate, files.key)
    except (OSError, ValueError) as error:
        names = ", ".join(path.name for path in files.paths)
        raise TlsError(f"{names}: {error}") from error


def _expiry(context: ssl.SSLContext, certificate: Path, key: Path) -> float:
    """Python reads a certificate's dates in a handshake only: one in memory, with a side that trusts the certificate.

    That side is a client. For a certificate of clients only, it is a server. Raises SSLError.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    _trust(asking, certificate)
    try:
        return _shown_expiry(asking, context, server_asks=False)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OUT_OF_DATE:
            raise
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
    shown.load_cert_chain(certificate, key, password="")
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(context, certificate)
    try:
        return _shown_expiry(shown, context, server_asks=True)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OUT_OF_DATE:
            raise
        return math.inf  # a certificate for something else, which says nothing about its dates


def _trust(context: ssl.SSLContext, certificate: Path) -> None:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=certificate)


def _shown_expiry(client: ssl.SSLContext, server: ssl.SSLContext, *, server_asks: bool) -> float:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for _ in range(2):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return ssl.cert_time_to_seconds(str((sides[server_asks].getpeercert() or {})["notAfter"]))


def watcher(
    files: Files, interval: float, use: Callable[[], object] = lambda: None, name: str = "certificates"
) -> Watcher:
    """Checks changed files and the certificate's expiry, for the operator, and calls `use` after a good check.

    An awaitable that `use` returns is awaited. server() reads the files itself. Raises TlsError.
    """
    watched = Watched(files.paths)
    expires = check(files)

    async def look() -> None:
        nonlocal expires
        if await watched.changed() or time.time() >= expires:
            expires = await asyncio.to_thread(check, files)
            if inspect.isawaitable(using := use()):
                await using
            watched.used()

    return Watcher(name, look, interval=interval)


def add_port(server_: grpc.aio.Server, files: Files, address: str) -> int:
    """Bind a server to an address, with TLS if files are given; returns the port. Raises TlsError, RuntimeError."""
    if not files:
        return server_.add_insecure_port(address)
    return server_.add_secure_port(address, server(files))


def channel(files: Files) -> grpc.ChannelCredentials:
    """Credentials of a connection to a server, from the files' present content. Raises TlsError."""
    return grpc.ssl_channel_credentials(_read(files.ca), _read(files.key), _read(files.certificate))


def context(files: Files) -> ssl.SSLContext:
    """For a listening socket outside gRPC, of files that check() or watcher() has passed. Raises TlsError, OSError."""
    if files.certificate is None:
        raise TlsError("a server needs a certificate")
    made = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(files.certificate, files.key, password="")
    return made


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    key, certificate = _read(files.key) or b"", _read(files.certificate) or b""
    return grpc.ssl_server_certificate_configuration([(key, certificate)], _read(files.ca))


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with opened(path) as file:
            return file.read()
    except OSError as error:
        raise TlsError(f"{path.name}: {error.strerror}") from error
