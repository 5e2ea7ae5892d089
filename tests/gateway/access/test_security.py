"""The watchers of keys, key set and certificates survive garbage of every kind, and take the next good file (B10)."""

import json

import pytest

from gateway.access.auth import Authenticator
from gateway.access.security import ConfigurationError, Security
from gateway.access.tokens import Tokens
from gateway.config import Config
from market_inference.contract import keys
from market_inference.contract.errors import UnauthenticatedError
from runtime.watcher import Watcher
from tests.gateway.access.test_auth import AUDIENCE, ISSUER, PRIVATE, key_set, token
from tests.gateway.test_tls import Authority

GARBAGE = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"5",
    b"[" * 100_000,
    b'{"keys": ' + b"[" * 100_000,
    b'{"keys": 5}',
    b'{"keys": [5, null, "x", []]}',
    b'{"keys": [{"kid": ["a"]}]}',
    b'{"keys": [{"kid": {"a": 1}, "kty": "RSA"}]}',
    b'{"keys": [{"kid": "RS256", "kty": ["RSA"], "n": 5, "e": {}}]}',
    b'{"keys": [{"kid": "RS256", "kty": "RSA", "n": "", "e": "AQAB"}]}',
    b'{"keys": [{"kid": "ES256", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
    b'{"keys": [{"prefix": ["a"], "sha256": [], "owner": {}, "scopes": 7}]}',
    b'{"keys": [{"prefix": "a"}]}',
    b" " * (17 << 20),
]


def watcher(security: Security, name: str, reconnect=lambda: None) -> Watcher:
    (found,) = [one for one in security.watchers(reconnect) if one.name == name]
    return found


def replace(path, content: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


async def test_keys(tmp_path):
    path = tmp_path / "keys.json"
    old, key = keys.issue("desk")
    with keys.edit(path) as known:
        known.append(key)
    security = Security(Config(keys_file=path))
    watching = watcher(security, "keys")
    for place, content in enumerate(GARBAGE, 1):
        replace(path, content)
        await watching.look()
        assert watching.failures == place
        assert "is not a keys file" in watching.failure
        assert security.authenticator.authenticate({old}).name == "desk"
    path.unlink()
    await watching.look()
    assert "No such file" in watching.failure
    new, key = keys.issue("desk")
    with keys.edit(path) as known:
        known[:] = [key]
    await watching.look()
    assert watching.failure == ""
    assert security.authenticator.authenticate({new}).name == "desk"
    with pytest.raises(UnauthenticatedError):
        security.authenticator.authenticate({old})


def test_a_missing_keys_file_is_told_with_the_command_that_makes_one(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigurationError, match=f"market-inference keys issue --file {path} --owner NAME"):
        Security(Config(keys_file=path))


async def test_a_deleted_keys_file_is_logged(tmp_path, caplog):
    path = tmp_path / "keys.json"
    with keys.edit(path) as known:
        known.append(keys.issue("desk")[1])
    watching = watcher(Security(Config(keys_file=path)), "keys")
    path.unlink()
    await watching.look()
    await watching.look()
    assert caplog.messages == ["watcher failed"]
    assert "keys.json" in caplog.records[0].fields["reason"]


async def test_key_set(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(key_set("RS256"))
    tokens = Tokens(str(path), issuer=ISSUER, audience=AUDIENCE)
    await tokens.refresh()
    watching = Watcher("key_set", tokens.look, interval=1.0)
    await watching.look()
    assert watching.failures == 0
    authenticator = Authenticator(keys.Keys([]), tokens)
    for place, content in enumerate(GARBAGE, 1):
        replace(path, content)
        await watching.look()
        assert watching.failures == place, content[:80]
        assert authenticator.authenticate({token("RS256")}).name == "jwt:robot"
    path.unlink()
    await watching.look()
    assert watching.failure
    replace(path, key_set("ES256").encode())
    await watching.look()
    assert watching.failure == ""
    assert authenticator.authenticate({token("ES256")}).name == "jwt:robot"
    with pytest.raises(UnauthenticatedError, match="not in the key set"):
        authenticator.authenticate({token("RS256")})


async def test_unusable_keys_beside_good_keys_are_left_out(tmp_path):
    """The key set of B10: one entry with `"kid": ["a"]` ended the watcher, and revoked keys stayed valid."""
    path = tmp_path / "jwks.json"
    path.write_text(key_set("RS256", "ES256"))
    tokens = Tokens(str(path), issuer=ISSUER, audience=AUDIENCE)
    await tokens.refresh()
    odd = json.loads(key_set("ES256"))
    odd["keys"] += [{**odd["keys"][0], "kid": ["a"]}, {"kid": "b", "kty": "oct", "k": "AA"}, 5]
    replace(path, json.dumps(odd).encode())
    watching = Watcher("key_set", tokens.look, interval=1.0)
    await watching.look()
    assert watching.failure == ""
    assert tokens.verify(token("ES256")).subject == "robot"
    with pytest.raises(UnauthenticatedError, match="not in the key set"):
        tokens.verify(token("RS256"))


async def test_a_subject_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(key_set(*PRIVATE))
    tokens = Tokens(str(path), issuer=ISSUER, audience=AUDIENCE)
    await tokens.refresh()
    with pytest.raises(UnauthenticatedError, match="subject"):
        tokens.verify(token(sub="x" * 257))


@pytest.mark.parametrize("name", ["certificates", "replica_certificates"])
async def test_certificates(tmp_path, name):
    authority = Authority("ours")
    side = authority.issue(tmp_path, "gateway")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    prefix = "tls" if name == "certificates" else "replica_tls"
    files = {f"{prefix}_certificate": side["certificate"], f"{prefix}_key": side["key"]}
    if name == "replica_certificates":
        files[f"{prefix}_ca"] = tmp_path / "ca.crt"
    with keys.edit(tmp_path / "keys.json") as known:
        known.append(keys.issue("desk")[1])
    connections = []
    security = Security(Config(keys_file=tmp_path / "keys.json", **files))
    watching = watcher(security, name, lambda: connections.append(1))
    await watching.look()
    assert watching.failures == 0
    good = side["certificate"].read_bytes()
    kinds = [b"", b"\xff" * 100, b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", good[:200]]
    for place, content in enumerate([*kinds, authority.issue(tmp_path, "other")["certificate"].read_bytes()], 1):
        replace(side["certificate"], content)
        await watching.look()
        assert watching.failures == place
        assert not connections
    side["certificate"].unlink()
    await watching.look()
    assert "gateway.crt" in watching.failure
    authority.issue(tmp_path, "gateway")
    await watching.look()
    assert watching.failure == ""
    assert len(connections) == (name == "replica_certificates")


async def test_a_worker_starts_from_the_copy_of_another_while_the_key_set_is_away(tmp_path):
    path, copy = tmp_path / "jwks.json", tmp_path / "copy.json"
    path.write_text(key_set("RS256"))
    settings = {"jwt_key_set": str(path), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_copy": copy}
    await Security(Config(**settings)).start()
    path.unlink()
    late = Security(Config(**settings))
    await late.start()
    assert late.authenticator.authenticate({token("RS256")}).name == "jwt:robot"
    watching = watcher(late, "key_set")
    await watching.look()
    assert "No such file" in watching.failure
    path.write_text(key_set("ES256"))
    await watching.look()
    assert late.authenticator.authenticate({token("ES256")}).name == "jwt:robot"
    with pytest.raises(UnauthenticatedError, match="not in the key set"):
        late.authenticator.authenticate({token("RS256")})
    assert copy.read_text() == path.read_text()
    path.unlink()
    copy.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        await Security(Config(**settings)).start()
    for make in (copy.mkdir, lambda: (copy.rmdir(), copy.write_bytes(b"[" * 100_000))):  # no file, and no key set
        make()
        with pytest.raises(ConfigurationError, match="No such file"):
            await Security(Config(**settings)).start()
