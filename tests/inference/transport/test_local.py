"""The Exchange socket of gateways of the same user."""

import asyncio
import os
from pathlib import Path

from inference.transport.local import LocalServer


def mask_of_the_process() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


async def test_the_socket_is_private_and_the_mask_of_the_process_is_unchanged_for_other_tasks(tmp_path_factory):
    path: Path = tmp_path_factory.mktemp("s") / "r"
    before, seen = mask_of_the_process(), []
    asyncio.get_running_loop().call_soon(lambda: seen.append(mask_of_the_process()))
    server = LocalServer(None)  # type: ignore[arg-type]
    await server.start(str(path))
    await asyncio.sleep(0)
    try:
        assert seen == [before]
        assert path.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240 -- a look at a file of this test
    finally:
        await server.stop(0)
