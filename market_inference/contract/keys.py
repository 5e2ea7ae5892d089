"""API keys: `mi_<prefix>_<secret>`, stored as the SHA-256 of the whole key.

Owns the form of a key, the keys file, changes of the file, and the development key. A secret is 32 random bytes, so a
fast hash is enough: guessing is hopeless (NIST SP 800-63B asks for slow hashes of secrets chosen by people).
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from market_inference.contract import methods
from market_inference.contract.regular_file import opened
from market_inference.contract.state import development_key_file

log = logging.getLogger(__name__)

FORM = "mi"
TRAINING_SCOPES = ("training:budget", "training:promote", "training:run")
"""What the training plane asks for. Training costs money: a key has these scopes only when they are named."""
SCOPES = (*methods.SCOPES, *TRAINING_SCOPES)
MOST_NAME_CHARACTERS: Final = 256
"""Characters of an owner's name."""
LAST_INSTANT: Final = 253_402_300_799.0
"""The last second of the year 9999, the latest expiry of a key."""
MOST_FILE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """A stored key. `expires` is a Unix time, 0 for never. Limits are in units; 0 stands for the gateway's setting."""

    prefix: str
    sha256: str
    owner: str
    scopes: tuple[str, ...]
    expires: float = 0.0
    units_per_second: float = 0.0
    units_per_day: float = 0.0

    def expired(self, at: float) -> bool:
        return 0 < self.expires <= at


class UnknownKeyError(LookupError):
    """No key with this prefix."""


def issue(
    owner: str,
    scopes: Iterable[str] = methods.SCOPES,
    *,
    expires: float = 0.0,
    units_per_second: float = 0.0,
    units_per_day: float = 0.0,
) -> tuple[str, Key]:
    """A new secret, shown once and stored nowhere, and the key to store.

    Raises ValueError for unknown scopes, an owner's name that is empty or too long, and numbers that are not finite.
    """
    scopes = tuple(scopes)
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise ValueError(f"no such scope: {', '.join(unknown)}; there are: {', '.join(SCOPES)}")
    if not _is_text(owner):
        raise ValueError(f"the owner must have 1 to {MOST_NAME_CHARACTERS} characters")
    if not (0 <= expires <= LAST_INSTANT and _is_amount(units_per_second) and _is_amount(units_per_day)):
        raise ValueError("expiry and limits must be finite numbers, not negative, and the expiry before the year 10000")
    prefix = secrets.token_hex(6)
    secret = f"{FORM}_{prefix}_{secrets.token_urlsafe(32)}"
    return secret, Key(prefix, _digest(secret), owner, scopes, expires, units_per_second, units_per_day)


def revoke(keys: list[Key], prefix: str) -> Key:
    """Remove the key from the list. Raises UnknownKeyError."""
    key = _known(keys, prefix)
    keys.remove(key)
    return key


def rotate(keys: list[Key], prefix: str, overlap: float) -> tuple[str, Key]:
    """A new key with the old key's owner, scopes, limits and expiry; the old key ends `overlap` seconds from now.

    Raises UnknownKeyError.
    """
    old = _known(keys, prefix)
    secret, fresh = issue(old.owner, old.scopes)
    fresh = replace(old, prefix=fresh.prefix, sha256=fresh.sha256)
    ends = time.time() + overlap
    keys[keys.index(old)] = replace(old, expires=min(ends, old.expires) if old.expires else ends)
    keys.append(fresh)
    return secret, fresh


def _known(keys: list[Key], prefix: str) -> Key:
    for key in keys:
        if key.prefix == prefix:
            return key
    raise UnknownKeyError(f"no key with the prefix {prefix!r}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """Keys by their public prefix."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.prefix: key for key in keys}
        # Secrets with a verified hash: at most one per key, since two secrets never have the same hash.
        self._verified: dict[str, Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, secret: str) -> Key | None:
        """The valid key with this secret, or None. Every wrong secret of a known prefix takes the same time."""
        key = self._verified.get(secret)
        if key is None:
            key = self._keys.get(public_part(secret))
            if key is None or not hmac.compare_digest(key.sha256, _digest(secret)):
                return None
            self._verified[secret] = key
        return None if key.expires and key.expired(time.time()) else key


def public_part(secret: str) -> str:
    """The prefix of a key, safe to show and to log; empty for a string without the form of a key."""
    form, _, rest = secret.partition("_")
    prefix, found, _ = rest.partition("_")
    return prefix if form == FORM and found and prefix.isalnum() and len(prefix) <= 32 else ""


def read(path: Path) -> list[Key]:
    """The keys of a file. Raises OSError when it cannot be read, ValueError when it is not a keys file."""
    with opened(path) as file:
        raw = file.read(MOST_FILE_BYTES + 1)
    try:
        if len(raw) > MOST_FILE_BYTES:
            raise ValueError(f"too large (max {MOST_FILE_BYTES} bytes)")
        document = json.loads(raw)
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("`keys` must be a list")  # noqa: TRY004 -- the error of a malformed file
        return [_key(place, entry) for place, entry in enumerate(entries)]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not a keys file: {error}") from error


def _key(place: int, entry: object) -> Key:
    """An entry of a keys file. Raises ValueError."""
    if not isinstance(entry, dict) or not _MEMBERS.keys() >= entry.keys() >= _REQUIRED:
        raise ValueError(f"keys[{place}] must have the members {', '.join(_MEMBERS)}")
    for name, value in entry.items():
        if not _MEMBERS[name](value):
            raise ValueError(f"keys[{place}].{name} is not valid")
    expires = entry.get("expires", 0.0)
    # A key whose expiry is no instant counts as expired: it would never end otherwise.
    expires = float(expires) if 0 <= expires <= LAST_INSTANT else 1.0
    return Key(**{**entry, "scopes": tuple(entry["scopes"]), "expires": expires})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_NAME_CHARACTERS


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_MEMBERS: Final[dict[str, Callable[[object], bool]]] = {
    "prefix": lambda value: _is_text(value) and public_part(f"{FORM}_{value}_x") == value,
    "sha256": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "owner": _is_text,
    "scopes": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "expires": _is_number,
    "units_per_second": _is_amount,
    "units_per_day": _is_amount,
}
_REQUIRED: Final = {"prefix", "sha256", "owner", "scopes"}


@contextmanager
def edit(path: Path) -> Iterator[list[Key]]:
    """The keys of a file, to change in place (no keys when the file is missing); written when the block ends well.

    Editors wait for each other; readers see the old file or the new file. Raises the errors of read().
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A symbolic link in the place of the lock file would let the lock truncate or create another file.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path.with_name(f".{path.name}.lock"), flags, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read(path) if path.exists() else []
        yield keys
        _write_aside(path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n").replace(path)


def development_key() -> tuple[str, Keys]:
    """The key of the machine's loopback gateways, made at the first start."""
    path = development_key_file()
    if not path.exists():
        secret, _ = issue("development")
        fresh = _write_aside(path, secret + "\n")
        # When several workers start at once, the first makes the key and the others read the file.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
            log.info("made the development key", extra={"fields": {"file": str(path)}})
        fresh.unlink()
    with opened(path) as file:
        secret = file.read(MOST_FILE_BYTES).decode().strip()
    return secret, Keys([Key(public_part(secret), _digest(secret), "development", SCOPES)])


def _write_aside(path: Path, text: str) -> Path:
    """A new file beside `path`, readable by the owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return fresh
