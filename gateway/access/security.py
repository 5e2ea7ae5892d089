"""Authentication and TLS as configured, or the refusal of an unsafe configuration.

Owns the parts made from keys, tokens and certificates, and the looks at their sources (runtime/watcher.py runs them).
"""

from collections.abc import Callable

import grpc

from gateway.access.auth import Authenticator, Keyring
from gateway.access.tokens import KeySetError, Tokens
from gateway.config import Config
from market_inference.contract import keys
from runtime import tls
from runtime.listen import is_loopback
from runtime.watcher import Watcher

LOOK_SECONDS = 1.0


class ConfigurationError(Exception):
    """The configuration is readable, and not safe or not possible."""


class Security:
    """Authentication of callers, and the certificates of both hops. Raises ConfigurationError."""

    def __init__(self, config: Config) -> None:
        _refuse_open_doors(config)
        try:
            self._keys = keys.development_key()[1] if config.keys_file is None else Keyring(config.keys_file)
        except (OSError, ValueError) as error:
            source = "MARKET_INFERENCE_STATE_DIR" if config.keys_file is None else "MARKET_GATEWAY_KEYS_FILE"
            is_missing = isinstance(error, FileNotFoundError) and config.keys_file is not None
            hint = (
                f": `market-inference keys issue --file {config.keys_file} --owner NAME` makes it" if is_missing else ""
            )
            raise ConfigurationError(f"{source}: {error}{hint}") from error
        try:
            self._tokens = _tokens(config)
        except ValueError as error:
            raise ConfigurationError(f"MARKET_GATEWAY_JWT_KEY_SET: {error}") from error
        self.files = tls.Files(config.tls_certificate, config.tls_key, config.tls_client_ca)
        self._to_replicas = tls.Files(config.replica_tls_certificate, config.replica_tls_key, config.replica_tls_ca)
        _check("MARKET_GATEWAY_TLS_CERTIFICATE, _KEY and _CLIENT_CA", self.files)
        _check("MARKET_GATEWAY_REPLICA_TLS_CERTIFICATE, _KEY and _CA", self._to_replicas)
        self.authenticator = Authenticator(self._keys, self._tokens)

    def replica_credentials(self) -> grpc.ChannelCredentials | None:
        """For a connection to a replica, from the files as they are now; None for plaintext. Raises TlsError."""
        return tls.channel(self._to_replicas) if self._to_replicas else None

    async def start(self) -> None:
        """Get the key set, so that the first token is not refused. Raises ConfigurationError."""
        if self._tokens is None:
            return
        try:
            await self._tokens.start()
        except KeySetError as error:
            raise ConfigurationError(f"MARKET_GATEWAY_JWT_KEY_SET: {error}") from error

    def watchers(self, reconnect: Callable[[], None]) -> list[Watcher]:
        """The watchers of everything configured. `reconnect` makes new connections to replicas, by new certificates."""
        found = []
        if isinstance(self._keys, Keyring):
            found.append(Watcher("keys", self._keys.look, interval=LOOK_SECONDS))
        if self._tokens is not None:
            found.append(Watcher("key_set", self._tokens.look, interval=LOOK_SECONDS))
        if self.files:
            found.append(tls.watcher(self.files, LOOK_SECONDS))
        if self._to_replicas:
            found.append(tls.watcher(self._to_replicas, LOOK_SECONDS, reconnect, "replica_certificates"))
        return found


def _check(settings: str, files: tls.Files) -> None:
    """Raises ConfigurationError with the names of the settings."""
    try:
        tls.check(files)
    except tls.TlsError as error:
        raise ConfigurationError(f"{settings}: {error}") from error


def _refuse_open_doors(config: Config) -> None:
    if is_loopback(config.listen):
        return
    where = f"MARKET_GATEWAY_LISTEN={config.listen} is open to other machines"
    if config.keys_file is None and not config.allow_development_key:
        raise ConfigurationError(
            f"{where}: set MARKET_GATEWAY_KEYS_FILE, since the development key is for loopback only "
            "(or MARKET_GATEWAY_ALLOW_DEVELOPMENT_KEY=true)"
        )
    if config.tls_certificate is None and not config.allow_plaintext:
        raise ConfigurationError(
            f"{where}: set MARKET_GATEWAY_TLS_CERTIFICATE and MARKET_GATEWAY_TLS_KEY, since keys would travel in the "
            "clear, or MARKET_GATEWAY_ALLOW_PLAINTEXT=true where TLS ends before the gateway"
        )


def _tokens(config: Config) -> Tokens | None:
    given = [config.jwt_key_set, config.jwt_issuer, config.jwt_audience]
    if not any(given):
        return None
    if not all(given):
        raise ConfigurationError("MARKET_GATEWAY_JWT_KEY_SET, _JWT_ISSUER and _JWT_AUDIENCE belong together")
    return Tokens(config.jwt_key_set, issuer=config.jwt_issuer, audience=config.jwt_audience, copy=config.jwt_copy)
