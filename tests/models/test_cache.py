"""The cache keeps the most recently used values within its bytes."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from models.cache import SizedCache, cache_of_device, sized_cache

LIMIT = 100


class Device(NamedTuple):
    """As a torch.device."""

    type: str


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 150)), max_size=60))
def test_the_bytes_kept_never_exceed_the_limit(puts):
    cache: SizedCache[int] = SizedCache(LIMIT)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, key, size)
        sizes[key] = size
        kept = [one for one in sizes if cache._entries.get(one)]
        assert cache.size_bytes == sum(sizes[one] for one in kept) <= LIMIT


def test_the_least_recently_used_value_goes_first():
    cache: SizedCache[str] = SizedCache(LIMIT)
    for key in "abcd":
        cache.put(key, key, 25)
    assert cache.get("a") == "a"
    cache.put("e", "e", 25)
    assert [cache.get(key) for key in "abcde"] == ["a", None, "c", "d", "e"]


def test_a_value_above_the_limit_is_computed_and_not_kept():
    calls = []

    @sized_cache(LIMIT, len)
    def text(length: int) -> str:
        calls.append(length)
        return "x" * length

    assert [len(text(50)), len(text(50)), len(text(101)), len(text(101))] == [50, 50, 101, 101]
    assert calls == [50, 101, 101]


def test_on_cuda_each_thread_has_values_of_its_own():
    made = []

    @cache_of_device(lru_cache(maxsize=8))
    def value(size: int, device: Any) -> object:
        made.append(device)
        return object()

    cuda, cpu = Device("cuda"), Device("cpu")
    with ThreadPoolExecutor(1) as thread:
        for device, makes in ((cuda, 2), (cpu, 1), ("cpu", 1)):
            mine, other = value(3, device), thread.submit(value, 3, device).result()
            assert (mine is other) is (makes == 1)
            assert (value(3, device), thread.submit(value, 3, device).result()) == (mine, other)
            assert made.count(device) == makes
