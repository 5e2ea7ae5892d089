"""Answers are refused before they are computed, once the answers in memory reach the bound."""

import pytest

from inference.calls.answer_memory import AnswerMemory
from market_inference.contract.errors import AnswerTooLargeError, OverloadedError


def test_one_client_holds_at_most_half_and_leaves_room_for_another():
    memory = AnswerMemory(100)
    memory.hold("greedy", 30)
    with pytest.raises(OverloadedError, match="no room for 21 bytes"):
        memory.hold("greedy", 21)
    memory.hold("modest", 50)
    with pytest.raises(OverloadedError):
        memory.hold("third", 21)
    memory.release("modest", 50)
    memory.hold("third", 21)
    memory.release("greedy", 30)
    memory.release("third", 21)
    assert (memory.held_bytes, memory._held) == (0, {})


def test_an_answer_above_the_bound_of_a_client_is_the_requests_mistake():
    memory = AnswerMemory(100)
    with pytest.raises(AnswerTooLargeError, match="max 50 bytes, expected 51"):
        memory.hold("a", 51)


def test_answers_that_are_not_sent_count():
    memory = AnswerMemory(100, unsent=lambda: 80)
    with pytest.raises(OverloadedError):
        memory.hold("a", 21)
    memory.hold("a", 20)


def test_empty_answers_side_by_side_are_released():
    memory = AnswerMemory(100)
    for size in (0, 0, 5):
        memory.hold("a", size)
    for size in (0, 5, 0):
        memory.release("a", size)
    assert (memory.held_bytes, memory._held) == (0, {})
