"""TLS for both hops: certificates from files, read again when they change.

Owns how files become gRPC credentials. Who must present a certificate is each service's configuration.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc

from runtime.logs import fields
from runtime.watched import Watched

log = logging.getLogger(__name__)


class TlsError(Exception):
    """The files cannot be read, or only a part of them is given."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: a certificate chain with its key, and the authorities (`ca`) that the other side must be signed by."""

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
    """For a listening socket. With `ca`, clients must present a certificate signed by it (mTLS). Raises TlsError.

    New connections get the files as they are when they connect; files that cannot be read leave the last good ones.
    """
    if files.certificate is None:
        raise TlsError("a server needs a certificate")
    watched = Watched(files.paths)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        if not watched.changed():
            return None
        try:
            fresh = _configuration(files)
        except TlsError as error:
            log.error("certificates not read again", extra=fields(reason=str(error)))  # noqa: TRY400 -- no bug
            return None
        log.info("certificates read again", extra=fields(file=files.certificate.name if files.certificate else ""))
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files),
        fetch,  # type: ignore[arg-type]  # None keeps the last one, as gRPC documents and its stubs do not
        require_client_authentication=files.ca is not None,
    )


def add_port(server_: grpc.aio.Server, files: Files, address: str) -> int:
    """Bind a server to an address, with TLS where there are files; returns the port. Raises TlsError, RuntimeError."""
    if not files:
        return server_.add_insecure_port(address)
    return server_.add_secure_port(address, server(files))


def channel(files: Files) -> grpc.ChannelCredentials:
    """For a connection to a server, as the files are now. Raises TlsError."""
    return grpc.ssl_channel_credentials(_read(files.ca), _read(files.key), _read(files.certificate))


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    key, certificate = _read(files.key) or b"", _read(files.certificate) or b""
    return grpc.ssl_server_certificate_configuration([(key, certificate)], _read(files.ca))


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path.name}: {error.strerror}") from error
