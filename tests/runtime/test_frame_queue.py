"""Frames: small messages keep their order, and wait for one large message at most."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.frame_queue import FRAME_BYTES, FrameQueue


def test_small_messages_that_are_ready_together_share_a_frame():
    queue = FrameQueue()
    assert not queue
    for message in (b"a", b"b"):
        queue.add((b"head", message))
    assert queue
    assert queue.take() == [b"head", b"a", b"head", b"b"]
    assert not queue


def test_a_frame_ends_with_the_message_that_fills_it():
    queue = FrameQueue()
    half = bytes(FRAME_BYTES // 2)
    for _ in range(3):
        queue.add((half,))
    assert [len(queue.take()), len(queue.take())] == [2, 1]


def test_a_small_message_waits_for_one_large_message_at_most():
    queue = FrameQueue()
    for number in range(3):
        queue.add((b"large", bytes([number])), number)
    assert queue.take() == [b"large", b"\0"]
    queue.add((b"small",))
    assert queue.take() == [b"small"]
    queue.add((b"small again",))
    assert queue.take() == [b"large", b"\1"]
    assert queue.take() == [b"small again"]
    assert queue.take() == [b"large", b"\2"]
    assert not queue


def test_a_large_message_that_waits_can_be_dropped():
    queue = FrameQueue()
    queue.add((b"x",), 7)
    assert (queue.discard(7), queue.discard(7), bool(queue)) == (True, False, False)


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40))
def test_every_message_leaves_once_and_each_kind_in_order(kinds, taken_between):
    queue, left = FrameQueue(), []
    for number, large in enumerate(kinds):
        queue.add((number.to_bytes(2),), number if large else None)
        if number == taken_between:
            left += queue.take()
    while queue:
        left += queue.take()
    found = [int.from_bytes(piece) for piece in left]
    assert [number for number in found if kinds[number]] == [at for at, large in enumerate(kinds) if large]
    assert [number for number in found if not kinds[number]] == [at for at, large in enumerate(kinds) if not large]
