"""The rule about redirects is the same for every client of a web server."""

import pytest

from gateway.access.fetch import FetchError, fetch
from runtime.remote.http import Http, RemoteError
from tests.gateway.test_tls import Authority
from tests.runtime.remote.answers import answering


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """Certificate and key of a server that this process trusts."""
    authority = Authority("ours")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    return authority.issue(tmp_path, "server")


def test_no_client_follows_a_redirect_from_https_to_http(tls):
    with answering(b"{}") as plain, answering(b"", 302, {"Location": plain.url}, tls) as moved:
        with pytest.raises(FetchError, match="302"):
            fetch(moved.url, seconds=60, most_bytes=100)
        with pytest.raises(RemoteError) as refused:
            Http({}).json(moved.url)
    assert refused.value.status == 302
    assert plain.seen == []


@pytest.mark.parametrize("first", ["http", "https"])
def test_every_client_follows_a_redirect_to_https(tls, first):
    moved_tls = tls if first == "https" else None
    with answering(b"{}", tls=tls) as safe, answering(b"", 302, {"Location": safe.url}, moved_tls) as moved:
        assert moved.url.startswith(f"{first}:")
        assert fetch(moved.url, seconds=60, most_bytes=100) == b"{}"
        assert Http({}).json(moved.url) == {}
    assert len(safe.seen) == 2
