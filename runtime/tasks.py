"""Tasks beside their maker. asyncio keeps no reference to a task, and the garbage collector may take the task."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks(set[asyncio.Task[None]]):
    """The tasks that have not ended."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, and keep it until its end."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
        return task

    async def cancel(self) -> None:
        """Cancel all tasks, and wait for their end."""
        running = tuple(self)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
