from market_inference.contract.short_cache import bytes_of_all, short_cache


def test_only_short_arguments_are_kept():
    asked = []

    @short_cache(8, most_bytes=4, size=len)
    def doubled(raw: bytes) -> bytes:
        asked.append(raw)
        return raw * 2

    for raw in (b"1234", b"12345"):
        assert doubled(raw) == doubled(raw) == raw * 2
    assert asked == [b"1234", b"12345", b"12345"]


def test_the_parts_of_an_argument_count_together():
    asked = []

    @short_cache(8, most_bytes=4, size=bytes_of_all)
    def joined(parts: tuple[bytes, ...]) -> bytes:
        asked.append(parts)
        return b"".join(parts)

    for parts in ((b"12", b"34"), (b"12", b"345")):
        assert joined(parts) == joined(parts)
    assert asked == [(b"12", b"34"), (b"12", b"345"), (b"12", b"345")]


def test_the_number_of_entries_has_a_bound():
    asked = []

    @short_cache(1, most_bytes=4, size=len)
    def noted(raw: bytes) -> None:
        asked.append(raw)

    for raw in (b"1", b"2", b"1"):
        noted(raw)
    assert asked == [b"1", b"2", b"1"]
