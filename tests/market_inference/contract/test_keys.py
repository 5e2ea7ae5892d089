"""API keys: the stored hashes, the keys file and the command."""

import json
import math
import stat
import time
from dataclasses import asdict

import pytest
from click.testing import CliRunner

from market_inference.cli.commands.keys import keys as command
from market_inference.contract import keys


def test_the_keys_file_holds_hashes_and_is_readable_by_the_owner_only(tmp_path):
    path = tmp_path / "keys.json"
    secret, key = keys.issue("desk", ["predict"])
    with keys.edit(path) as known:
        known.append(key)
    assert secret not in path.read_text()
    assert secret.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = keys.Keys(keys.read(path)).find(secret)
    assert found is not None
    assert (found.owner, found.scopes) == ("desk", ("predict",))


@pytest.mark.parametrize(
    "wrong", ["", "mi", "mi_", "mi_abc", "mi__", "xx_{p}_secret", "mi_{p}_secret", "mi_{p}_", "{s}x", "mi_{p}"]
)
def test_a_wrong_secret_finds_no_key(wrong):
    secret, key = keys.issue("desk")
    assert keys.Keys([key]).find(wrong.format(p=key.prefix, s=secret)) is None


def test_an_expired_key_is_not_valid():
    secret, key = keys.issue("desk", expires=time.time() - 1)
    assert keys.Keys([key]).find(secret) is None
    secret, key = keys.issue("desk", expires=time.time() + 600)
    assert keys.Keys([key]).find(secret) is key


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="no such scope: forecast; there are: analyze"):
        keys.issue("desk", ["forecast"])


def test_rotation_keeps_scopes_and_limits_and_ends_the_old_key_after_the_overlap():
    old_secret, old = keys.issue("desk", ["predict"], units_per_second=5)
    known = [old]
    secret, fresh = keys.rotate(known, old.prefix, overlap=3600)
    assert (fresh.owner, fresh.scopes, fresh.units_per_second) == ("desk", ("predict",), 5)
    both = keys.Keys(known)
    assert both.find(secret) == fresh
    ending = both.find(old_secret)
    assert ending is not None
    assert 3500 < ending.expires - time.time() <= 3600
    keys.rotate(known, fresh.prefix, overlap=0)
    assert keys.Keys(known).find(secret) is None


def test_the_command_issues_lists_rotates_and_revokes(tmp_path):
    path = str(tmp_path / "keys.json")
    run = CliRunner().invoke
    issued = run(command, ["issue", "--file", path, "--owner", "desk", "--scope", "predict", "--days", "1"])
    assert issued.exit_code == 0, issued.output
    secret = issued.stdout.strip()
    prefix = keys.public_part(secret)
    listed = run(command, ["list", "--file", path]).stdout
    assert prefix in listed
    assert "desk  predict  ends 20" in listed
    assert secret not in listed
    rotated = run(command, ["rotate", "--file", path, prefix, "--overlap-hours", "0"]).stdout.strip()
    assert run(command, ["revoke", "--file", path, keys.public_part(rotated)]).exit_code == 0
    assert run(command, ["revoke", "--file", path, "beef"]).exit_code == 1
    assert "expired" in run(command, ["list", "--file", path]).stdout
    assert len(json.loads((tmp_path / "keys.json").read_text())["keys"]) == 1


@pytest.mark.parametrize("expires", [math.nan, math.inf, -1.0, 1e300])
def test_an_expiry_that_is_no_instant_is_refused_and_counts_as_expired_in_a_file(expires, tmp_path):
    with pytest.raises(ValueError, match="must be finite numbers"):
        keys.issue("desk", expires=expires)
    secret, key = keys.issue("desk")
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**asdict(key), "expires": expires}]}))
    (read,) = keys.read(path)
    assert keys.Keys([read]).find(secret) is None
    listed = CliRunner().invoke(command, ["list", "--file", str(path)])
    assert listed.exit_code == 0
    assert "expired" in listed.output


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix": ["a"]},
        {"prefix": ""},
        {"sha256": 5},
        {"sha256": "g" * 64},
        {"owner": None},
        {"owner": "x" * 257},
        {"scopes": "predict"},
        {"scopes": [["predict"]]},
        {"expires": "tomorrow"},
        {"expires": True},
        {"units_per_day": math.nan},
        {"units_per_second": -1},
        {"unknown": 1},
    ],
)
def test_an_entry_that_breaks_the_schema_is_named(changes, tmp_path):
    _, key = keys.issue("desk")
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [asdict(key), {**asdict(key), **changes}]}))
    with pytest.raises(ValueError, match=r"keys\[1\]"):
        keys.read(path)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"keys": {}}', b"null"])
def test_bytes_that_are_no_keys_file_are_refused(raw, tmp_path):
    (tmp_path / "keys.json").write_bytes(raw)
    with pytest.raises(ValueError, match="is not a keys file"):
        keys.read(tmp_path / "keys.json")


def test_the_lock_file_follows_no_symbolic_link(tmp_path):
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / ".keys.json.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"), keys.edit(tmp_path / "keys.json"):
        pass
    assert target.read_text() == "content"


def test_a_clock_that_is_set_back_locks_out_no_key(monkeypatch):
    """B16: the expiry is an instant of the wall clock; nothing else about a key depends on the clock."""
    secret, key = keys.issue("desk", expires=time.time() + 600)
    known = keys.Keys([key])
    assert known.find(secret) is key
    back = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: back)
    assert known.find(secret) is key


def test_a_file_that_is_no_keys_file_is_reported_in_one_line(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("[]")
    answer = CliRunner().invoke(command, ["list", "--file", str(path)])
    assert answer.exit_code == 1
    assert "keys.json is not a keys file" in answer.output
