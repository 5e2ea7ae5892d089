"""Puts the parts of a worker together, or refuses a configuration that would leave a door open."""

import logging

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gateway.access.auth import Authenticator, Keyring
from gateway.access.tokens import Tokens
from market_inference.contract import keys
from runtime.listen import is_loopback
from runtime.remote.location import Location
from training.plane import registry
from training.plane.champion import Champion
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.duty import Duty
from training.plane.errors import ConfigurationError
from training.plane.folder import FolderObjects
from training.plane.gatekeeper import Gatekeeper
from training.plane.launchers import configured
from training.plane.objects import Objects
from training.plane.publisher import Publisher
from training.plane.services import Services
from training.plane.signature import Signer
from training.plane.watchdog import Watchdog

log = logging.getLogger(__name__)


class Access:
    """Keys and tokens of callers, and how changed files of these are read again."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError."""
        _refuse_open_doors(config)
        try:
            self._keys = keys.development_key()[1] if config.keys_file is None else Keyring(config.keys_file)
            self.tokens = _tokens(config)
        except (OSError, ValueError) as error:
            raise ConfigurationError(str(error)) from error
        self.authenticator = Authenticator(self._keys, self.tokens)

    async def look(self) -> None:
        """Read the keys file again when it has changed."""
        if isinstance(self._keys, Keyring):
            await self._keys.look()


def build(config: Config, access: Access) -> Services:
    """The parts, with the store migrated. Raises ConfigurationError, sqlalchemy.exc.DBAPIError."""
    try:
        config.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"MARKET_TRAINING_FOLDER: {error}") from error
    store = _store(config)
    store.keep_room()
    signer = Signer(store)
    objects = _objects(config, signer)
    clock = Clock()
    return Services(
        config=config,
        store=store,
        objects=objects,
        signer=signer,
        authenticator=access.authenticator,
        machines=configured.made(config, store),
        clock=clock,
        publisher=_publisher(config, store, objects, clock),
    )


def _store(config: Config) -> Database:
    """The store, migrated. Raises ConfigurationError, without the address: it may hold a password."""
    setting = "MARKET_TRAINING_DATABASE_URL" if config.database_url else "MARKET_TRAINING_FOLDER"
    try:
        store = Database(config.store_url)
    except (SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        form = "postgresql+psycopg://USER@HOST/NAME or sqlite:////PATH"
        raise ConfigurationError(f"{setting} is no address of a database: {form}") from error
    try:
        store.migrate()
    except DBAPIError as error:
        raise ConfigurationError(f"{setting}: {' '.join(str(error.orig).split())}") from error
    except CommandError as error:  # such as a database of a newer version
        raise ConfigurationError(f"{setting}: {error}") from error
    return store


def _publisher(config: Config, store: Database, objects: Objects, clock: Clock) -> Publisher | None:
    if not config.registry:
        return None
    try:
        return Publisher(store, objects, registry.of(config.registry), clock)
    except ValueError as error:
        raise ConfigurationError(f"MARKET_TRAINING_REGISTRY: {error}") from error


def gatekeeper(services: Services, worker: str) -> Gatekeeper:
    """The gate of one worker."""
    config = services.config
    key = config.gateway_key.get_secret_value() if config.gateway_key else ""
    champion = Champion(config.gateway, key, tls=config.gateway_tls) if config.gateway else None
    return Gatekeeper(services.store, services.objects, champion, config.max_looks, worker, services.clock)


def model_duties(services: Services) -> dict[str, Duty]:
    """The duties of promoted models: publish, and watch. Raises ConfigurationError."""
    config, publisher = services.config, services.publisher
    if publisher is None:
        return {}
    replicas = [address.strip() for address in config.replicas.split(",") if address.strip()]
    if wrong := [address for address in replicas if not address.startswith(("http://", "https://"))]:
        raise ConfigurationError(f"MARKET_TRAINING_REPLICAS: {wrong[0]!r} is no http address")
    watchdog = Watchdog(services.store, replicas, publisher.publish, services.clock)
    return {
        "models_published": Duty(config.watch_every, publisher.everything),
        "models_watched": Duty(config.watch_every, watchdog.look),
    }


def _objects(config: Config, signer: Signer) -> Objects:
    if not config.objects:
        return FolderObjects(config.root / "objects", signer, config.url, config.min_free_bytes)
    from training.plane.bucket import BucketObjects  # boto3 takes a third of a second

    try:
        return BucketObjects(Location.of(config.objects, whole=True))
    except ValueError as error:
        raise ConfigurationError(f"MARKET_TRAINING_OBJECTS: {error}") from error


def _refuse_open_doors(config: Config) -> None:
    if is_loopback(config.listen):
        return
    where = f"MARKET_TRAINING_LISTEN={config.listen} is open to other machines"
    if config.keys_file is None:
        raise ConfigurationError(f"{where}: set MARKET_TRAINING_KEYS_FILE; the development key is for loopback only")
    if not config.allow_plaintext:
        raise ConfigurationError(
            f"{where}: keys would travel in the clear; set MARKET_TRAINING_ALLOW_PLAINTEXT=true where TLS ends in front"
        )


def _tokens(config: Config) -> Tokens | None:
    given = [config.jwt_key_set, config.jwt_issuer, config.jwt_audience]
    if not any(given):
        return None
    if not all(given):
        raise ConfigurationError("MARKET_TRAINING_JWT_KEY_SET, _JWT_ISSUER and _JWT_AUDIENCE belong together")
    return Tokens(config.jwt_key_set, issuer=config.jwt_issuer, audience=config.jwt_audience, copy=config.jwt_copy)
