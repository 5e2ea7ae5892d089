"""The event loop of a service, with and without uvloop."""

import asyncio
import importlib.util
import time

import grpc
import pytest

from runtime import loop


def without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(loop, "find_spec", lambda name: None if name == "uvloop" else find(name))


@pytest.mark.parametrize(("installed", "module"), [(True, "uvloop"), (False, "asyncio")])
def test_a_service_runs_with_and_without_uvloop(monkeypatch: pytest.MonkeyPatch, installed: bool, module: str) -> None:
    if not installed:
        without_uvloop(monkeypatch)
    found: list[str] = []

    async def main() -> None:
        found.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    loop.run(main())
    assert found == [module]


@pytest.mark.parametrize("installed", [True, False])
def test_a_burst_of_answers_of_grpc_takes_few_turns_of_a_loop_with_other_work(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        without_uvloop(monkeypatch)
    calls, turns, ended = 3_000, 0, []

    async def main() -> None:
        running = asyncio.get_running_loop()

        def work() -> None:
            nonlocal turns
            turns += 1
            time.sleep(0.001)
            running.call_soon(work)

        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            method = channel.unary_unary("/a/b")
            end = time.monotonic() + 3
            waiting = [method(b"", timeout=end - time.monotonic(), wait_for_ready=True) for _ in range(calls)]
            for call in waiting:
                call.add_done_callback(lambda _: ended.append(turns))
            running.call_soon(work)
            await asyncio.gather(*waiting, return_exceptions=True)

    loop.run(main())
    assert len(ended) == calls
    # One turn for each event beyond the first 278 would be at least 2,700 turns.
    assert ended[-1] - ended[0] < 1_000
