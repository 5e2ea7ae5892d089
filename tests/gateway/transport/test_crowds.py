"""Calls of a client with many begin in turns beside others' calls, and at once without others."""

import asyncio
import itertools

from gateway.transport.crowds import MOST_CALLS, TURNS, Crowds


async def test_a_client_without_company_waits_for_nothing() -> None:
    crowds = Crowds()
    assert [crowds.enter("one") for _ in range(10 * MOST_CALLS)] == [None] * 10 * MOST_CALLS


async def test_beside_others_the_calls_of_a_crowd_begin_one_in_some_turns_of_the_loop() -> None:
    crowds, turn, begun = Crowds(), 0, list[int]()
    crowds.enter("other")
    assert [crowds.enter("one") for _ in range(MOST_CALLS + 1)] == [None] * (MOST_CALLS + 1)
    for _ in range(3):
        begins = crowds.enter("one")
        assert begins is not None
        begins.add_done_callback(lambda _: begun.append(turn))
    assert crowds.enter("other") is None
    while len(begun) < 3:
        turn += 1
        await asyncio.sleep(0)
    assert [later - before for before, later in itertools.pairwise(begun)] == [TURNS, TURNS]


async def test_calls_that_end_or_leave_while_they_wait_make_room() -> None:
    crowds = Crowds()
    crowds.enter("other")
    entered = [crowds.enter("one") for _ in range(MOST_CALLS + 3)]
    waiting = [begins for begins in entered if begins is not None]
    assert len(waiting) == 2
    waiting[0].cancel()
    for _ in entered:
        crowds.leave("one")
    await asyncio.wait_for(waiting[1], 60)
    assert [crowds.enter("one") for _ in range(MOST_CALLS)] == [None] * MOST_CALLS
