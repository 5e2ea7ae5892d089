"""Limits of requests in flight: per client, and in total."""

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


def test_a_client_with_half_of_its_limit_is_crowded_until_places_are_given_back():
    held, woken = InFlight(most=100, most_per_client=100), []
    held.enter("a", 51)
    assert held.crowded("a")
    assert not held.crowded("b")
    held.after_leave(lambda: woken.append("once"))
    held.leave("a", 1)
    held.leave("a", 1)
    assert woken == ["once"]
    assert not held.crowded("a")


def test_empty_amounts_side_by_side_are_given_back():
    held = InFlight(most=100, most_per_client=80, what="bytes")
    for amount in (0, 0, 5):
        held.enter("a", amount)
    for amount in (0, 5, 0):
        held.leave("a", amount)
    assert (held.total, held.clients) == (0, 0)
