"""The profile of one engine's thread and device, by operator (torch.profiler).

Owns the start and stop of the profiler on that thread. Shapes, stacks and values are not recorded.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.device.cuda import loaded_torch
from inference.device.engine import Engine
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import profile_pb2

DEFAULT_ENGINE = "forecast"


async def take(engines: Mapping[str, Engine], request: profile_pb2.TakeProfileRequest) -> bytes:
    """A Chrome trace (JSON) of `request.seconds`.

    Raises InvalidRequestError for an unknown engine, and where no model has imported torch.

    The engine's batches wait while the profiler starts and while the profiler collects its records.
    """
    engine = engines.get(request.engine or DEFAULT_ENGINE)
    if engine is None:
        raise InvalidRequestError([Violation("engine", f"unknown; there are: {', '.join(engines)}", "engine")])
    torch = loaded_torch()
    if torch is None:
        raise InvalidRequestError(
            [Violation("kind", "no model of this replica runs on torch; profile its CPU (--kind flamegraph)", "torch")]
        )
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)
    # The profiler records the starting thread. The same thread must stop the profiler, even if the caller cancels.
    try:
        await asyncio.shield(engine.call(profiler.start))
        await asyncio.sleep(request.seconds)
    finally:
        await asyncio.shield(engine.call(profiler.stop))
    return await asyncio.to_thread(_written, profiler)


def _written(profiler: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return file.read_bytes()
