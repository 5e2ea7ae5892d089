"""Redirects and dead addresses: the rules are the same for every client of a web server."""

import socket
import time
from urllib.parse import urlsplit

import pytest

from gateway.access.fetch import FetchError, fetch
from runtime.remote.http import Http, RemoteError
from tests.gateway.test_tls import Authority
from tests.runtime.remote.answers import answering
from tests.silent_port import silent_port


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


@pytest.fixture
def dead():
    """A port of loopback where no connection is accepted or refused."""
    with silent_port() as port:
        yield port


@pytest.fixture
def addresses(monkeypatch):
    """The ports of loopback that the name `several.test` stands for."""
    ports = []
    ask = socket.getaddrinfo

    def answer(host, *arguments, **options):
        if host != "several.test":
            return ask(host, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return ports


def test_the_addresses_of_a_name_share_the_time_of_the_request(addresses, dead):
    addresses += [dead] * 400
    before = time.monotonic()
    with pytest.raises(FetchError, match=r"no answer within 0\.5 s"):
        fetch("http://several.test/", seconds=0.5, most_bytes=100)
    with pytest.raises(RemoteError, match=r"no answer within 0\.5 s"):
        Http({}, timeout=0.5).json("http://several.test/")
    assert time.monotonic() - before < 60  # 0.5 s for each address: 400 s


def test_a_dead_address_leaves_time_for_the_others(addresses, dead):
    with answering(b"{}") as server:
        addresses += [dead, *[urlsplit(server.url).port] * 59]
        assert fetch("http://several.test/", seconds=60, most_bytes=100) == b"{}"


def test_a_name_whose_addresses_refuse_is_a_failure_that_says_so(addresses):
    addresses += [1, 1]
    with pytest.raises(FetchError, match="refused"):
        fetch("http://several.test/", seconds=60, most_bytes=100)
