"""API keys: `mi_<prefix>_<secret>`, kept as SHA-256 of the whole.

Owns the form of a key, the file of hashes and the development key. A key is 32 random bytes, so that a plain hash is
enough: there is nothing to guess (NIST SP 800-63B asks for slow hashes where people choose secrets).
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from wire import contract
from wire.state import development_key_file

log = logging.getLogger(__name__)

_FORM = "mi"


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key. `expires` is a Unix time; 0 is never."""

    prefix: str
    sha256: str
    owner: str
    scopes: tuple[str, ...]
    expires: float = 0.0


def issue(owner: str, scopes: Iterable[str] = contract.SCOPES, expires: datetime | None = None) -> tuple[str, Key]:
    """A new secret, which is shown once and never kept, and what is kept of it."""
    prefix = secrets.token_hex(6)
    secret = f"{_FORM}_{prefix}_{secrets.token_urlsafe(32)}"
    return secret, Key(prefix, _digest(secret), owner, tuple(scopes), expires.timestamp() if expires else 0.0)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """Keys by their public prefix."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.prefix: key for key in keys}

    def find(self, secret: str) -> Key | None:
        """The valid key that this secret is, or None. Takes the same time for every wrong secret of a known prefix."""
        form, _, rest = secret.partition("_")
        prefix, _, _ = rest.partition("_")
        key = self._keys.get(prefix) if form == _FORM else None
        if key is None or not hmac.compare_digest(key.sha256, _digest(secret)):
            return None
        if key.expires and key.expires <= datetime.now(UTC).timestamp():
            return None
        return key


def read(path: Path) -> Keys:
    """The keys of a file. Raises OSError when it cannot be read, ValueError when it is not a keys file."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        return Keys(Key(**{**entry, "scopes": tuple(entry["scopes"])}) for entry in entries)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is not a keys file: {error}") from error


def write(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file at once, readable by its owner alone."""
    _write_private(path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n")


def development_key() -> tuple[str, Keys]:
    """The key of this machine's loopback gateways, made at the first start."""
    path = development_key_file()
    if not path.exists():
        secret, _ = issue("development")
        _write_private(path, secret + "\n")
        log.info("made the development key", extra={"fields": {"file": str(path)}})
    secret = path.read_text(encoding="utf-8").strip()
    prefix = secret.split("_")[1] if secret.count("_") >= 2 else ""
    return secret, Keys([Key(prefix, _digest(secret), "development", contract.SCOPES)])


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
