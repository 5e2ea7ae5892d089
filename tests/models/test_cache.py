"""The cache keeps the most recently used values within its bytes."""

from hypothesis import given
from hypothesis import strategies as st

from models.cache import SizedCache, sized_cache

LIMIT = 100


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
