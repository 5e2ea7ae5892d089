"""Which targets are this machine, and who is trusted with the local key."""

from pathlib import Path

import pytest

from market_inference.client.connection import find_key, is_loopback


@pytest.mark.parametrize("target", ["127.0.0.1:8470", "localhost:1", "[::1]:8470", "dns:///127.0.0.9:1", "unix:/run/x"])
def test_loopback(target: str) -> None:
    assert is_loopback(target)


@pytest.mark.parametrize("target", ["10.0.0.1:8470", "gateway:8470", "localhost.evil.example:1", "dns:///a.b:1", "1:1"])
def test_not_loopback(target: str) -> None:
    assert not is_loopback(target)


def test_the_local_key_never_leaves_this_machine(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "development-key").write_text("local")
    assert find_key("127.0.0.1:1", None) == "local"
    assert find_key("gateway.example:1", None) == ""
