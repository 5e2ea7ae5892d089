"""Certificates that expire."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from runtime import tls
from tests.authority import Authority


def files(folder: Path, valid: timedelta) -> tls.Files:
    made = Authority("ours").issue(folder, "server", valid)
    return tls.Files(made["certificate"], made["key"])


def test_the_expiry_is_known(tmp_path: Path) -> None:
    assert tls.check(files(tmp_path, timedelta(hours=1))) == pytest.approx(time.time() + 3600, abs=60)
    assert tls.check(tls.Files()) == float("inf")


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tls.TlsError, match=r"server\.crt, server\.key: .*certificate has expired"):
        tls.check(files(tmp_path, timedelta(minutes=-1)))


def test_the_expiry_of_a_certificate_for_clients_only_is_known(tmp_path: Path) -> None:
    def clients(valid: timedelta) -> tls.Files:
        ours = Authority("ours")
        (tmp_path / "ca.crt").write_bytes(ours.certificate)
        made = ours.issue(tmp_path, "client", valid, [ExtendedKeyUsageOID.CLIENT_AUTH])
        return tls.Files(made["certificate"], made["key"], tmp_path / "ca.crt")

    assert tls.check(clients(timedelta(hours=1))) == pytest.approx(time.time() + 3600, abs=60)
    with pytest.raises(tls.TlsError, match="certificate has expired"):
        tls.check(clients(timedelta(minutes=-1)))


async def test_a_certificate_that_expires_in_service_is_a_failure_of_the_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    watcher = tls.watcher(files(tmp_path, timedelta(hours=1)), 1.0, lambda: used.append("used"))
    await watcher.look()
    assert not watcher.failure
    assert not used
    # The files change, and the new certificate has expired: the one before stays in use.
    files(tmp_path, timedelta(minutes=-1))
    await watcher.look()
    assert "has expired" in watcher.failure
    files(tmp_path, timedelta(hours=2))
    await watcher.look()
    assert not watcher.failure
    assert used == ["used"]
    # Without a change, the time alone ends the certificate: the check is asked again.
    now = time.time()
    monkeypatch.setattr("runtime.tls.time.time", lambda: now + 3 * 3600)
    monkeypatch.setattr("runtime.tls.check", lambda _: (_ for _ in ()).throw(tls.TlsError("certificate has expired")))
    await watcher.look()
    assert "has expired" in watcher.failure
