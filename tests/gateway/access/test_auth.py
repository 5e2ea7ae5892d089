"""Authentication: keys from a file that changes, and tokens of an issuer; other credentials are refused."""

import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.access.auth import Authenticator, Keyring, authorise
from gateway.access.security import ConfigurationError, Security
from gateway.access.tokens import KeySetError, Tokens
from gateway.access.tokens import key_set as parsed
from gateway.config import Config
from market_inference.contract import keys
from market_inference.contract.errors import PermissionDeniedError, UnauthenticatedError
from market_inference.contract.methods import METHODS

ISSUER, AUDIENCE = "https://issuer.example", "market-inference"
PRIVATE = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def key_set(*algorithms: str) -> str:
    found = []
    for name in algorithms:
        algorithm = jwt.get_algorithm_by_name(name)
        found.append({**algorithm.to_jwk(PRIVATE[name].public_key(), as_dict=True), "kid": name})
    return json.dumps({"keys": found})


def token(algorithm: str = "RS256", **changes) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "exp": time.time() + 600, "scope": "predict status"}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, PRIVATE[algorithm], algorithm, headers={"kid": algorithm})


@pytest.fixture
async def tokens(tmp_path):
    (tmp_path / "jwks.json").write_text(key_set(*PRIVATE))
    tokens = Tokens(str(tmp_path / "jwks.json"), issuer=ISSUER, audience=AUDIENCE)
    await tokens.refresh()
    return tokens


async def test_keys_issued_revoked_and_broken_files_count_without_a_restart(tmp_path):
    path = tmp_path / "keys.json"
    first, key = keys.issue("first")
    with keys.edit(path) as known:
        known.append(key)
    ring = Keyring(path)
    authenticator = Authenticator(ring)
    assert authenticator.authenticate({first}).name == "first"
    second, other = keys.issue("second", ["status"])
    with keys.edit(path) as known:
        known[:] = [other]
    await ring.look()
    assert authenticator.authenticate({second}).scopes == {"status"}
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate({first})
    path.write_text("{broken")
    with pytest.raises(ValueError, match="is not a keys file"):
        await ring.look()
    assert authenticator.authenticate({second}).name == "second"


def test_a_client_without_the_scope_is_told_which_one():
    secret, key = keys.issue("desk", ["status"])
    client = Authenticator(keys.Keys([key])).authenticate({secret})
    authorise(client, METHODS["GetStatus"])
    with pytest.raises(PermissionDeniedError, match="lacks the scope 'predict', which Predict needs"):
        authorise(client, METHODS["Predict"])


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_token_of_the_issuer_is_its_subject_with_its_scopes(tokens, algorithm):
    client = Authenticator(keys.Keys([]), tokens).authenticate({token(algorithm)})
    assert (client.name, client.scopes) == ("jwt:robot", {"predict", "status"})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": time.time() - 60}, "has expired"),
        ({"exp": None}, "is not valid"),
        ({"sub": None}, "is not valid"),
        ({"aud": "another"}, "for another audience"),
        ({"iss": "https://evil.example"}, "of another issuer"),
        ({"nbf": time.time() + 86_400}, "is not valid"),
        ({"exp": 10**400}, "is not valid"),
        ({"sub": ""}, "subject must be 1 to 256 printable characters"),
        ({"sub": "a\nb"}, "subject must be"),
        ({"sub": "\ud800"}, "subject must be"),
        ({"sub": "x" * 257}, "subject must be"),
    ],
)
async def test_a_token_that_says_something_else_is_refused(tokens, changes, why):
    with pytest.raises(UnauthenticatedError, match=why):
        tokens.verify(token(**changes))


async def test_no_signature_hmac_under_a_public_key_and_unknown_keys_are_refused(tokens, tmp_path):
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "exp": time.time() + 600}
    unsigned = jwt.encode(claims, None, "none", headers={"kid": "RS256"})
    with pytest.raises(UnauthenticatedError, match="algorithm"):
        tokens.verify(unsigned)
    hmac = jwt.encode(claims, "x" * 64, "HS256", headers={"kid": "RS256"})
    with pytest.raises(UnauthenticatedError, match="algorithm"):
        tokens.verify(hmac)
    for confused in (
        jwt.encode(claims, PRIVATE["ES256"], "ES256", headers={"kid": "RS256"}),
        jwt.encode(claims, PRIVATE["RS256"], "RS256", headers={"kid": "gone"}),
        token()[:-4] + "AAAA",
        "a.b.c",
    ):
        with pytest.raises(UnauthenticatedError):
            tokens.verify(confused)


async def test_a_known_token_ends_with_its_time_and_with_its_key(tokens, tmp_path, monkeypatch):
    mine = token("ES256")
    assert tokens.verify(mine) is tokens.verify(mine)
    later = time.time() + 3600
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: later)
        with pytest.raises(UnauthenticatedError, match="expired"):
            tokens.verify(mine)
    assert tokens.verify(mine)
    (tmp_path / "jwks.json").write_text(key_set("RS256"))
    await tokens.refresh()
    with pytest.raises(UnauthenticatedError, match="not in the key set"):
        tokens.verify(mine)


async def test_a_clock_that_is_set_back_locks_out_no_token(tokens, tmp_path, monkeypatch):
    """B16: a known token stays valid, and the key set is renewed by a clock that never goes back."""
    mine = token("ES256")
    known = tokens.verify(mine)
    back = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: back)
    assert tokens.verify(mine) is known
    (tmp_path / "jwks.json").write_text(key_set("RS256"))
    await tokens.look()
    with pytest.raises(UnauthenticatedError, match="not in the key set"):
        tokens.verify(mine)


def short_key() -> dict[str, object]:
    public = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505
    return jwt.get_algorithm_by_name("RS256").to_jwk(public, as_dict=True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (short_key, "an RSA key needs at least 2048 bits"),
        ({"use": "enc"}, "the `use` of a key must be `sig`"),
        ({"use": ["sig"]}, "the `use` of a key must be `sig`"),
        ({"key_ops": ["encrypt", "wrapKey"]}, "the `key_ops` of a key must contain `verify`"),
        ({"key_ops": "verify"}, "the `key_ops` of a key must contain `verify`"),
        ({"alg": "RS384"}, "the algorithm of a key must be one of RS256, ES256, EdDSA"),
        ({"alg": "RSA-OAEP"}, "a key has members that cannot be read"),
        ({"kid": 5}, "a key needs a `kid` of 1 to 256 characters"),
    ],
)
def test_a_key_that_must_not_verify_is_left_out_and_the_others_stay(changes, why, caplog):
    good = json.loads(key_set("RS256"))["keys"][0]
    odd = {**good, "kid": "odd"}
    odd.update(changes() if callable(changes) else changes)
    good.update(use="sig", key_ops=["verify"])
    assert list(parsed(json.dumps({"keys": [odd, good]}).encode())) == ["RS256"]
    (line,) = caplog.records
    assert line.fields == {"usable": 1, "keys": 2, "reason": why}
    with pytest.raises(KeySetError, match=f"no usable key among 1: {why}"):
        parsed(json.dumps({"keys": [odd]}).encode())


async def test_a_key_set_that_cannot_be_had_is_an_error_and_http_is_a_mistake(tmp_path):
    with pytest.raises(KeySetError):
        await Tokens(str(tmp_path / "none.json"), issuer=ISSUER, audience=AUDIENCE).refresh()
    with pytest.raises(ValueError, match="by https"):
        Tokens("http://issuer.example/jwks", issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"listen": "0.0.0.0:0"}, "KEYS_FILE"),
        ({"listen": "0.0.0.0:0", "allow_development_key": True}, "in the clear"),
        ({"jwt_issuer": ISSUER}, "belong together"),
        ({"keys_file": "missing.json"}, "^MARKET_GATEWAY_KEYS_FILE: .*missing.json"),
        (
            {"jwt_key_set": "http://x", "jwt_issuer": ISSUER, "jwt_audience": "x"},
            "^MARKET_GATEWAY_JWT_KEY_SET: .*https",
        ),
        ({"tls_certificate": "a.pem", "tls_key": "k.pem"}, "^MARKET_GATEWAY_TLS_CERTIFICATE, _KEY .*a.pem"),
        ({"replica_tls_ca": "c.pem"}, "^MARKET_GATEWAY_REPLICA_TLS_CERTIFICATE, _KEY .*c.pem"),
    ],
)
def test_a_configuration_that_leaves_a_door_open_is_refused(settings, why, tmp_path, monkeypatch):
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError, match=why):
        Security(Config(**settings))


def test_open_doors_can_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    Security(Config(listen="0.0.0.0:0", allow_development_key=True, allow_plaintext=True))
