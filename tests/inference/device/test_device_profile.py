"""Profiles of an engine's thread."""

import asyncio
import json
from contextlib import suppress

import pytest
import torch

from inference.device import device_profile
from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import profile_pb2

ASK = profile_pb2.TakeProfileRequest(seconds=1, engine="test")


async def work(engine):
    while True:
        await engine.call(lambda: torch.ones(4, 2).matmul(torch.ones(2, 3)))
        await asyncio.sleep(0.001)  # a profile of some hundred operators is read faster than one of a hundred thousand


async def test_it_has_the_operators_of_that_thread_and_not_their_shapes(engine):
    working = asyncio.create_task(work(engine))
    names: set[str] = set()
    while "aten::matmul" not in names:  # in a second of a busy machine, the engine may do nothing
        taken = await device_profile.take({"test": engine}, ASK)
        names = {event.get("name") for event in json.loads(taken)["traceEvents"]}
        assert b"Input Dims" not in taken
    working.cancel()


async def test_a_caller_who_leaves_ends_the_profiler(engine):
    for _ in range(3):
        leaving = asyncio.create_task(device_profile.take({"test": engine}, ASK))
        await asyncio.sleep(0)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
    assert json.loads(await device_profile.take({"test": engine}, ASK))["traceEvents"]


async def test_an_unknown_engine_is_refused_with_those_that_there_are(engine):
    with pytest.raises(InvalidRequestError, match="there are: test"):
        await device_profile.take({"test": engine}, profile_pb2.TakeProfileRequest(seconds=1, engine="gpu"))
