"""The turns of clients."""

import pytest

from runtime.round_robin import RoundRobin


def test_clients_take_turns_and_the_items_of_a_client_keep_their_order():
    waiting: RoundRobin[str] = RoundRobin()
    for client, item in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")]:
        waiting.add(client, item)
    first = waiting.pop()
    waiting.add("b", "b2")
    rest = []
    while waiting:
        rest.append(waiting.pop())
    assert [first, *rest] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    with pytest.raises(KeyError):
        waiting.pop()
