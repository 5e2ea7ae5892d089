"""A least-recently-used cache that is bounded in bytes.

Owns the bound: keys that clients choose, such as lists of indicators or quantile levels, make entries of very different
size, and a bound on their number would not bound the memory.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from threading import Lock, get_ident
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
V = TypeVar("V")


class SizedCache(Generic[V]):
    """Values by key, at most `limit` bytes of them. Safe from any thread. A value above the limit is not kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Any, tuple[V, int]] = OrderedDict()
        self._lock = Lock()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Any) -> V | None:
        """The value of a key, now the most recently used; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Any, value: V, size_bytes: int) -> None:
        """Keep a value of `size_bytes`, its key included; the least recently used values go."""
        with self._lock:
            _, before = self._entries.pop(key, (None, 0))
            self.size_bytes -= before
            if size_bytes > self._limit:
                return
            self._entries[key] = value, size_bytes
            self.size_bytes += size_bytes
            while self.size_bytes > self._limit:
                _, (_, dropped) = self._entries.popitem(last=False)
                self.size_bytes -= dropped


def sized_cache(limit: int, size_of: Callable[[Any], int]) -> Callable[[Callable[P, V]], Callable[P, V]]:
    """Cache a function's results by its positional arguments, at most `limit` bytes of results.

    `size_of` gives the bytes of a result and of its arguments. The function never returns None.
    """

    def decorate(function: Callable[P, V]) -> Callable[P, V]:
        cache: SizedCache[V] = SizedCache(limit)

        @wraps(function)
        def cached(*args: P.args, **kwargs: P.kwargs) -> V:
            found = cache.get(args)
            if found is None:
                found = function(*args, **kwargs)
                cache.put(args, found, size_of(found))
            return found

        cached.cache = cache  # type: ignore[attr-defined]
        return cached

    return decorate


def cache_of_device(cache: Callable[[Any], Any]) -> Callable[[Callable[P, V]], Callable[P, V]]:
    """Cache tensors with `cache`, such as lru_cache(8), for a function whose last positional argument is the device.

    On CUDA each thread has tensors of its own: a thread's stream does not wait for the stream on which another thread's
    tensor is still being made, and memory that the other thread frees is used again without waiting.
    """

    def decorate(function: Callable[P, V]) -> Callable[P, V]:
        @cache
        def of_thread(_: int, *args: Any) -> V:
            return function(*args)  # type: ignore[call-arg]  # mypy does not know that these are all arguments

        @wraps(function)
        def cached(*args: Any) -> V:
            found: V = of_thread(get_ident() if getattr(args[-1], "type", "") == "cuda" else 0, *args)
            return found

        cached.cache = getattr(of_thread, "cache", None)  # type: ignore[attr-defined]
        return cached  # type: ignore[return-value]

    return decorate
