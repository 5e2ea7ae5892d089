"""The same call has the same arguments in every client, so that a new argument is missing nowhere."""

import inspect
from typing import Any

import pytest

from market_inference.client import calls
from market_inference.client.aio import AsyncClient
from market_inference.client.client import Client
from market_inference.client.stream import AsyncStream, Stream

KINDS: tuple[Any, ...] = (Client, AsyncClient, Stream, AsyncStream)
# Of the sending: clients take a time-out among their options.
SENDING = {"self", "options", "timeout"}


def arguments(function: Any) -> dict[str, tuple[Any, Any]]:
    return {
        name: (one.kind, one.default)
        for name, one in inspect.signature(function).parameters.items()
        if name not in SENDING
    }


@pytest.mark.parametrize("method", ["predict", "sentiment", "indicators"])
def test_clients_and_streams_take_the_same_arguments(method: str) -> None:
    given = [arguments(getattr(kind, method)) for kind in KINDS]
    assert all(one == given[0] for one in given)
    names = {"specs": "indicators"}
    assert {names.get(name, name) for name in arguments(getattr(calls, method))} == set(given[0])


def test_the_parts_of_analyze_are_the_arguments_of_the_clients() -> None:
    clients, asyncs = (arguments(kind.analyze) for kind in (Client, AsyncClient))
    assert clients == asyncs
    assert {name: default for name, (_, default) in clients.items()} == {
        name: one.default for name, one in inspect.signature(calls.AnalyzeParts).parameters.items()
    }
