"""Turns are fair between clients and keep the order within a session."""

from hypothesis import given
from hypothesis import strategies as st

from inference.sessions.turns import Turns


def test_a_client_with_many_sessions_and_one_with_a_single_session_take_turns():
    turns: Turns[str, int] = Turns()
    for session in range(50):
        for work in range(10):
            turns.add("greedy", f"g{session}", work)
    for work in range(3):
        turns.add("modest", "m", work)
    first = [client for client, _, _ in turns.take(6, 1.0)]
    assert first.count("modest") == 3


def test_a_client_of_expensive_work_gets_fewer_turns():
    turns: Turns[str, int] = Turns()
    for work in range(100):
        turns.add("slow", "s", work)
        turns.add("quick", "q", work)
    served = {"slow": 0, "quick": 0}
    for _ in range(60):
        for client, session, _ in list(turns.take(1, 1.0)):
            served[client] += 1
            turns.measured(client, session, 0.009 if client == "slow" else 0.001)
    assert 6 <= served["quick"] / served["slow"] <= 12


def test_the_bound_on_seconds_counts_what_a_session_has_taken_lately():
    turns: Turns[str, int] = Turns()
    for work in range(200):
        turns.add("c", "s", work)
    for _ in range(100):
        for client, session, _ in list(turns.take(1, 1.0)):
            turns.measured(client, session, 0.004)
    assert len(list(turns.take(100, 0.01))) == 3


work = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=60)


@given(work, st.integers(1, 7))
def test_each_sessions_work_runs_once_and_in_order(arrivals, size):
    turns: Turns[str, int] = Turns()
    expected: dict[str, list[int]] = {}
    for place, (client, number) in enumerate(arrivals):
        session = f"{client}{number}"
        turns.add(client, session, place)
        expected.setdefault(session, []).append(place)
    ran: dict[str, list[int]] = {}
    while turns:
        batch = list(turns.take(size, 1.0))
        *done, (client, session, place) = batch
        turns.put_back(client, session, place) if done else ran.setdefault(session, []).append(place)
        for client, session, place in done:
            ran.setdefault(session, []).append(place)
            turns.measured(client, session, 0.001)
    assert ran == expected


def test_a_removed_session_leaves_no_work():
    turns: Turns[str, int] = Turns()
    turns.add("a", "s", 1)
    turns.add("a", "t", 2)
    turns.remove("a", "s")
    turns.remove("a", "unknown")
    assert [session for _, session, _ in turns.take(10, 1.0)] == ["t"]
    assert not turns
