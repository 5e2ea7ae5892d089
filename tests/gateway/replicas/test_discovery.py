"""Discovery of replicas: whatever a look-up brings, the known replicas stay and the next look-up follows."""

import asyncio
import socket

import pytest

from gateway.replicas import discovery
from gateway.replicas.discovery import Discovery, DiscoveryError, Endpoint
from gateway.replicas.router import Router
from tests.eventually import eventually_async


async def test_addresses_stand_for_themselves_and_names_for_all_their_addresses():
    assert await Discovery("10.0.0.7:8471,[::1]:1").look() == [
        Endpoint("10.0.0.7:8471", "10.0.0.7"),
        Endpoint("[::1]:1", "::1"),
    ]
    assert await Discovery("unix:/run/r,10.0.0.7:1").look() == [
        Endpoint("unix:/run/r", "localhost"),
        Endpoint("10.0.0.7:1", "10.0.0.7"),
    ]
    assert await Discovery("localhost:8471").look() == [Endpoint("127.0.0.1:8471", "localhost")]


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 64 + ".example", "a..b"])
async def test_a_name_without_an_address_is_an_error_that_says_the_name(name, monkeypatch):
    if name.endswith(".invalid"):  # the other names are refused without a name server

        async def unknown(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown, raising=False)
    with pytest.raises(DiscoveryError, match=name[:20]):
        await Discovery(f"{name}:8471").look()


async def test_a_name_server_that_does_not_answer_is_an_error(monkeypatch):
    monkeypatch.setattr(discovery, "LOOK_SECONDS", 0.05)

    async def silent(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent, raising=False)
    with pytest.raises(DiscoveryError, match=r"no answer within 0\.05 s"):
        await Discovery("replicas.example:8471").look()


class Unsteady:
    """Finds one replica, then fails in each of the given ways, then finds it again."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.looks = 0

    async def look(self) -> list[Endpoint]:
        self.looks += 1
        if self.looks > 1 and self.failures:
            raise self.failures.pop(0)
        return [Endpoint("127.0.0.1:1", "127.0.0.1")]


class Known:
    """A replica that is never asked."""

    ready = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.address = endpoint, endpoint.address

    def start(self) -> None: ...

    async def close(self) -> None: ...


async def test_no_failure_of_a_look_up_ends_the_looking_or_the_known_replicas():
    router, found = Router(), Unsteady(DiscoveryError("away"), RuntimeError("a bug"), OSError("odd"))
    router.follow(found, 0.001, Known)  # type: ignore[arg-type]
    await eventually_async(lambda: found.looks > 6)
    assert [replica.address for replica in router.replicas] == ["127.0.0.1:1"]
    await router.close()
