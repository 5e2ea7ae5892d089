"""Files that are watched: a mount that hangs holds neither the event loop nor more than one thread."""

import asyncio
import threading
from pathlib import Path

import pytest

from runtime.watched import Watched


async def test_a_file_is_changed_until_the_change_is_used(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("1")
    watched = Watched([file])
    assert not await watched.changed()
    file.write_text("22")
    assert await watched.changed()
    assert await watched.changed()
    watched.used()
    assert not await watched.changed()
    file.unlink()
    with pytest.raises(FileNotFoundError):
        await watched.changed()


async def test_a_mount_that_hangs_keeps_one_thread_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, back, calls = tmp_path / "keys.json", threading.Event(), []
    file.write_text("1")
    watched = Watched([file])
    stat = Path.stat

    def hangs(path: Path, **given: bool) -> object:
        if path == file:
            calls.append(path)
            back.wait()
        return stat(path, **given)

    monkeypatch.setattr(Path, "stat", hangs)
    try:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await watched.changed()
    finally:
        back.set()
    assert not await watched.changed()
    assert len(calls) == 1
