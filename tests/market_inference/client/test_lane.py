"""A service without streams: calls in company are unary."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import market_inference


async def test_calls_in_company_are_unary_where_the_service_has_no_streams(service):
    async with market_inference.AsyncClient(service.target) as client:
        for _ in range(2):
            found = await asyncio.gather(*(client.predict([1.0] * 40, 3) for _ in range(5)))
            assert [one.horizon for one in found] == [3] * 5
        assert client._lane is not None
        assert client._lane.refused
    assert service.methods_called == ["Predict"] * 10


def test_threads_are_unary_where_the_service_has_no_streams(service):
    with market_inference.Client(service.target) as client, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: client.predict([1.0] * 40, 3), range(40)))
    assert [one.horizon for one in found] == [3] * 40
    assert service.methods_called == ["Predict"] * 40


def test_a_child_process_does_not_use_its_parents_lane(service, monkeypatch):
    with market_inference.Client(service.target) as client:
        assert client._lane.usable
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert not client._lane.usable
        monkeypatch.undo()
