"""Limits of requests in flight: per client, and in total."""

import asyncio

import pytest

from gateway.access.in_flight import InFlight
from market_inference.contract.errors import OverloadedError


def test_one_above_a_limit_is_refused_and_a_place_given_back_is_free_again():
    places = InFlight(most=3, most_per_client=2, what="streams")
    places.enter("a")
    places.enter("a")
    with pytest.raises(OverloadedError, match=r"too many streams of this client in flight \(max 2\)"):
        places.enter("a")
    places.enter("b")
    with pytest.raises(OverloadedError, match=r"too many streams in flight \(max 3\)"):
        places.enter("b")
    places.leave("a")
    places.enter("b")
    assert places.total == 3


def test_a_client_with_little_in_flight_is_not_refused_for_the_others():
    held = InFlight(most=100, most_per_client=80, what="bytes", spared=10)
    held.enter("a", 80)
    held.enter("b", 20)
    held.enter("c", 10)
    with pytest.raises(OverloadedError):
        held.enter("c", 1)


def test_a_single_amount_above_the_limit_passes_while_nothing_else_is_in_flight():
    held = InFlight(most=100, most_per_client=80)
    held.enter("a", 120)
    with pytest.raises(OverloadedError):
        held.enter("a", 1)
    held.leave("a", 120)
    assert held.total == 0


def test_a_client_with_more_than_half_of_its_limit_is_crowded_until_places_are_given_back():
    held = InFlight(most=100, most_per_client=100)
    held.enter("a", 51)
    assert held.crowded("a")
    assert not held.crowded("b")
    held.leave("a", 1)
    assert not held.crowded("a")


async def test_those_that_wait_for_room_go_on_one_after_the_other_as_long_as_there_is_room():
    held, order = InFlight(most=100, most_per_client=100), []
    held.enter("a", 90)
    held.enter("b", 10)

    async def enter(name: str, amount: int) -> None:
        await held.room("a")
        held.enter("a", amount)
        order.append(name)

    waiting = [asyncio.create_task(enter(*one)) for one in (("first", 20), ("second", 40), ("third", 1))]
    await settle()
    held.leave("b", 10)
    held.leave("a", 30)
    await settle()
    assert order == []
    held.leave("a", 30)
    await settle()
    assert order == ["first", "second"]
    held.leave("a", 60)
    await asyncio.gather(*waiting)
    assert order == ["first", "second", "third"]


async def test_one_that_waits_for_room_and_leaves_holds_up_nobody():
    held = InFlight(most=100, most_per_client=100)
    held.enter("a", 60)
    gone, other = asyncio.create_task(held.room("a")), asyncio.create_task(held.room("a"))
    await settle()
    held.leave("a", 60)
    gone.cancel()
    await other
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_while_others_fill_the_limit_those_of_a_spared_client_enter_one_after_the_other():
    held, order = InFlight(most=100, most_per_client=100, spared=10), []
    held.enter("other", 100)

    async def enter(number: int) -> None:
        await held.enter_in_turn("a", 10)
        order.append(number)

    waiting = [asyncio.create_task(enter(number)) for number in range(6)]
    await settle()
    assert order == [0]
    waiting[1].cancel()
    held.leave("a", 10)  # wakes the second, which leaves: before it is told, the turn is the third's
    await settle()
    assert order == [0, 2]
    held.leave("a", 10)
    waiting[3].cancel()  # has been woken: passes its turn on
    await settle()
    assert order == [0, 2, 4]
    waiting[5].cancel()
    await settle()
    held.leave("a", 10)
    assert not held._leaving
    assert held.total == 100
    with pytest.raises(OverloadedError):
        await held.enter_in_turn("a", 11)
    assert [task.cancelled() for task in waiting] == [False, True, False, True, False, True]


async def test_one_leave_is_enough_for_all_that_have_room_then():
    held, order = InFlight(most=100, most_per_client=100), []
    held.enter("a", 1)
    held.enter("a", 99)

    async def enter(number: int, amount: int) -> None:
        await held.enter_in_turn("a", amount)
        order.append(number)

    waiting = [asyncio.create_task(enter(number, amount)) for number, amount in enumerate((30, 30, 50, 1))]
    await settle()
    assert order == []
    held.leave("a", 99)
    await settle()
    assert order == [0, 1]  # nobody passes the one with the largest amount
    held.leave("a", 30)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3]
    assert not held._leaving


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_empty_amounts_side_by_side_are_given_back():
    held = InFlight(most=100, most_per_client=80, what="bytes")
    for amount in (0, 0, 5):
        held.enter("a", amount)
    for amount in (0, 5, 0):
        held.leave("a", amount)
    assert (held.total, held.clients) == (0, 0)
