"""The service on a CUDA device: every engine answers, running out of memory is handled, and memory does not grow."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import torch

from benchmarks.soak import soak
from inference.build import Components, build
from inference.calls.call import ReplicaCall
from inference.config import Config
from inference.device.engine import Engine, run_batch
from market_inference.contract.generated import inference_pb2


@pytest.fixture
async def parts(device: str) -> AsyncIterator[Components]:
    parts = build(Config(device=device, _env_file=None))
    await parts.catalog.load_defaults()
    yield parts
    parts.close()


async def test_every_engine_loads_and_answers(parts: Components) -> None:
    status = inference_pb2.GetStatusResponse.FromString(
        await parts.servicer.status(inference_pb2.GetStatusRequest(), ReplicaCall())
    )
    (replica,) = status.replicas
    assert replica.health == inference_pb2.HEALTH_HEALTHY, replica.message
    assert (replica.device.kind, replica.device.memory_total_bytes > 0) == ("cuda", True)


async def test_every_engine_has_a_separate_cuda_stream(device: str) -> None:
    engines = [Engine(name, device=device) for name in ("a", "b")]
    streams = [await engine.call(torch.cuda.current_stream) for engine in engines]
    assert len({stream.cuda_stream for stream in (*streams, torch.cuda.default_stream())}) == 3
    for engine in engines:
        engine.close()


class Hungry:
    """A model that allocates a quarter of the free memory per item, and answers with the number of items."""

    name = "hungry"

    def run(self, items: list[int]) -> list[int]:
        free, _ = torch.cuda.mem_get_info()
        torch.empty(len(items) * free // 4, dtype=torch.uint8, device="cuda")
        return [len(items)] * len(items)


def test_the_engine_recovers_from_running_out_of_device_memory() -> None:
    ran = run_batch(Hungry(), list(range(16)))
    assert ran.oom_recoveries > 0
    assert max(ran.outcomes) < 16
    assert torch.cuda.memory_allocated() < 2**30


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_device_memory_does_not_grow_over_mixed_requests() -> None:
    readings = [reading async for reading, _ in soak(1_200, 400)]
    assert np.ptp([reading.device for reading in readings[1:]]) < 8 * 2**20
