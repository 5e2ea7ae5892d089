"""Waiting work of several clients, in turns: much work of one client delays the work of others by a turn at most."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RoundRobin(Generic[Item]):
    """A queue of items for every client. False while no item waits."""

    def __init__(self) -> None:
        # The first client is the next.
        self._queues: OrderedDict[str, deque[Item]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, client: str, item: Item) -> None:
        """Let the item wait behind the other items of the client."""
        self._queues.setdefault(client, deque()).append(item)

    def pop(self) -> Item:
        """The first item of the next client, removed. Raises KeyError when no item waits."""
        client, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[client] = queue
        return item
