"""Frames on a Unix socket: every byte arrives, writes are bounded, lost and frozen peers are noticed."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import frames as module
from runtime.frames import ConnectionLostError, Frames
from runtime.listen import bind_unix
from tests.eventually import eventually_async


class End:
    """One end of a connection, and everything that arrived there."""

    def __init__(self, **options: float) -> None:
        self.got: list[bytes] = []
        self.ends: list[ConnectionLostError | None] = []
        self.frames = Frames(self.got.append, self.ends.append, **options)


@asynccontextmanager
async def connected(path: str, **options: float) -> AsyncIterator[tuple[End, End]]:
    """Both ends of a connection; the options are those of the listening end."""
    loop, ends = asyncio.get_running_loop(), list[End]()

    def accept() -> Frames:
        ends.append(End(**options))
        return ends[-1].frames

    server = await loop.create_unix_server(accept, path)
    near = End()
    await loop.create_unix_connection(lambda: near.frames, path)
    await eventually_async(lambda: ends)
    try:
        yield near, ends[0]
    finally:
        for end in (near, ends[0]):
            end.frames.abort()
            await end.frames.closed.wait()
        server.close()


@pytest.fixture
def path(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("s") / "s")


SIZES = st.lists(st.sampled_from([0, 1, 4, 5, 100, 4096, 262_139, 262_144, 262_149, 700_000]), max_size=12)


@given(sizes=SIZES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_of_any_size_arrive_whole_and_in_order(path, sizes):
    sent = [os.urandom(size) for size in sizes]

    async def run() -> None:
        async with connected(path) as (near, far):
            for content in sent:
                await near.frames.write(content)
            near.frames.end()
            await eventually_async(lambda: far.ends)
            assert far.got == sent
            assert far.ends == [None]

    asyncio.run(run())
    Path(path).unlink()


@given(data=st.data(), sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_frames_in_pieces_of_any_size_arrive_whole(data, sizes):
    async def run() -> None:
        sent = [os.urandom(size) for size in sizes]
        raw = memoryview(b"".join(module._HEAD.pack(len(content), 0) + content for content in sent))
        end = End()
        while raw:
            size = data.draw(st.integers(1, len(raw)))
            end.frames.get_buffer(-1)[:size] = raw[:size]
            end.frames.buffer_updated(size)
            raw = raw[size:]
        assert end.got == sent

    asyncio.run(run())


async def test_a_write_waits_while_the_peer_does_not_read(path):
    async with connected(path) as (near, far):
        assert far.frames._transport is not None
        far.frames._transport.pause_reading()
        writes = asyncio.gather(*(near.frames.write(bytes(module.UNSENT_BYTES)) for _ in range(8)))
        await eventually_async(lambda: near.frames._room)
        assert not writes.done()
        far.frames._transport.resume_reading()
        await asyncio.wait_for(writes, 60)
        await eventually_async(lambda: len(far.got) == 8)


async def _abort(near: End) -> None:
    near.frames.abort()


async def _oversize(near: End) -> None:
    assert near.frames._transport is not None
    near.frames._transport.write(module._HEAD.pack(module.MOST_BYTES + 1, 0))


@pytest.mark.parametrize("lose", [_abort, _oversize])
async def test_a_connection_that_closes_before_the_end_is_lost_at_both_ends(
    path, lose: Callable[[End], Awaitable[None]]
):
    async with connected(path) as (near, far):
        await near.frames.write(b"before")
        await eventually_async(lambda: far.got)
        await lose(near)
        await eventually_async(lambda: near.ends and far.ends)
        assert isinstance(near.ends[0], ConnectionLostError)
        assert isinstance(far.ends[0], ConnectionLostError)
        for end in (near, far):
            with pytest.raises(ConnectionLostError):
                await end.frames.write(b"after")


async def test_a_waiting_write_fails_when_the_connection_is_lost(path):
    async with connected(path) as (near, far):
        assert far.frames._transport is not None
        far.frames._transport.pause_reading()
        write = asyncio.gather(
            *(near.frames.write(bytes(module.UNSENT_BYTES)) for _ in range(8)), return_exceptions=True
        )
        await eventually_async(lambda: near.frames._room)
        far.frames.abort()
        assert isinstance((await asyncio.wait_for(write, 60))[-1], ConnectionLostError)


async def test_a_write_before_the_connection_waits_for_it_and_one_without_a_connection_fails(path):
    early = End()
    write = asyncio.create_task(early.frames.write(b"early"))
    got: list[bytes] = []
    server = await asyncio.get_running_loop().create_unix_server(lambda: Frames(got.append, lambda error: None), path)
    await asyncio.get_running_loop().create_unix_connection(lambda: early.frames, path)
    await asyncio.wait_for(write, 60)
    await eventually_async(lambda: got == [b"early"])
    early.frames.abort()
    server.close()
    never = End()
    write = asyncio.create_task(never.frames.write(b"never"))
    await asyncio.sleep(0)
    never.frames.abort()
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(write, 60)


async def test_a_peer_that_answers_pings_stays_and_a_frozen_peer_is_lost(path):
    """The test runs the timer by hand: on a busy machine, an answer may take longer than a short pause."""
    async with connected(path, ping_seconds=3600.0) as (near, far):
        pongs, send = [], near.frames._send
        near.frames._send = lambda *frame: (pongs.append(frame), send(*frame))  # type: ignore[method-assign]
        for count in range(1, 5):
            far.frames._check_peer()
            await eventually_async(lambda count=count: len(pongs) == count and far.frames._heard)
            assert not far.ends
        near.frames._send = lambda *frame: None  # type: ignore[method-assign]
        far.frames._check_peer()
        far.frames._check_peer()
        await eventually_async(lambda: far.ends)
        assert isinstance(far.ends[0], ConnectionLostError)


async def test_pings_are_sent_by_a_timer(path):
    async with connected(path, ping_seconds=0.05) as (near, _):
        pings, take = [], near.frames._take
        near.frames._take = lambda *frame: (pings.append(frame), take(*frame))  # type: ignore[method-assign]
        await eventually_async(lambda: pings)


async def test_only_the_user_may_connect(path):
    server = await asyncio.get_running_loop().create_unix_server(End, sock=bind_unix(path))  # type: ignore[arg-type]
    mode = Path(path).stat().st_mode  # noqa: ASYNC240 -- a look at a file of this test
    assert stat.S_IMODE(mode) == 0o600
    server.close()
