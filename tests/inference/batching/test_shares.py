"""Fair shares: one client's backlog is not another client's wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching.shares import Shares


def test_a_new_client_waits_for_as_much_of_anothers_backlog_as_it_adds_itself():
    shares = Shares()
    shares.add("greedy", "interactive", 100.0, at=0.0)
    assert shares.ahead("modest", "interactive", 0.5) == 0.5
    assert shares.ahead("greedy", "interactive", 0.5) == 100.0


def test_interactive_work_does_not_wait_for_batch_work():
    shares = Shares()
    shares.add("a", "batch", 10.0, at=0.0)
    assert shares.ahead("b", "interactive", 1.0) == 0.0
    assert shares.ahead("b", "batch", 1.0) == 1.0


def test_a_full_queue_has_room_for_a_client_below_its_share():
    shares = Shares()
    shares.add("greedy", "interactive", 12.0, at=0.0)
    assert shares.fits("modest", "interactive", 2.5, running=0.0, limit=5.0)
    assert not shares.fits("modest", "interactive", 2.6, running=0.0, limit=5.0)
    assert not shares.fits("greedy", "interactive", 0.1, running=0.0, limit=5.0)


def test_a_clients_work_starts_at_the_end_of_its_last_work():
    shares = Shares()
    assert shares.add("a", "interactive", 2.0, at=10.0) == 10.0
    assert shares.add("a", "interactive", 1.0, at=11.0) == 12.0
    assert shares.add("b", "interactive", 1.0, at=11.0) == 10.0
    shares.serve(11.0, at=11.0)
    shares.correct("a", -3.0)
    assert shares.add("a", "interactive", 1.0, at=11.0) == 11.0


def test_in_an_overload_a_light_client_starts_with_the_work_in_service():
    shares = Shares()
    for heavy in ("a", "b", "c", "d"):
        for _ in range(5):
            shares.add(heavy, "interactive", 1.0, at=0.0)
    # After four seconds the first second of each client's work has been served.
    shares.serve(1.0, at=4.0)
    assert shares.add("light", "interactive", 0.01, at=4.0) == 1.0
    assert shares.add("a", "interactive", 1.0, at=4.0) == 5.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["interactive", "batch"]), st.floats(0, 10))))
def test_removing_everything_that_was_added_leaves_nothing(work):
    shares = Shares()
    for client, priority, seconds in work:
        shares.add(client, priority, seconds, at=0.0)
    for client, priority, seconds in work:
        shares.remove(client, priority, seconds)
    assert shares.total == pytest.approx(0.0, abs=1e-8)
    assert shares.ahead("a", "batch", 1.0) == pytest.approx(0.0, abs=1e-8)
