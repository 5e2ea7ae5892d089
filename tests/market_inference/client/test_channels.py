"""Calls are spread over channels."""

import pytest

from gateway.transport.interface import LIMITS
from market_inference.client.channels import CALLS, Channels
from market_inference.errors import ClosedError


class Channel:
    """The part of a channel that a stub asks for."""

    def unary_unary(self, *_: object, **__: object) -> None: ...

    stream_stream = unary_unary


def test_a_channel_has_fewer_calls_than_a_gateway_takes_on_a_connection():
    made: list[Channel] = []

    def make() -> Channel:
        made.append(Channel())
        return made[-1]

    channels = Channels(make)
    taken = [channels.take() for _ in range(CALLS + 1)]
    assert LIMITS["max_concurrent_streams"] > CALLS
    assert [one.channel for one in taken] == [made[0]] * CALLS + [made[1]]
    channels.leave(taken[0])
    assert channels.take().channel is made[0]
    assert channels.close() == made
    with pytest.raises(ClosedError):
        channels.take()


def test_a_failed_call_gives_its_place_back():
    channels = Channels(Channel)
    with pytest.raises(KeyError), channels.stub():
        raise KeyError
    shared = channels.take()
    assert shared.calls == 1
