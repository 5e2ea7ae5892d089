"""The caller by the metadata, looked up once per loop turn: an expired key is refused from the next turn on."""

import asyncio

import pytest

from gateway.access.auth import Authenticator
from gateway.access.caller import Callers
from market_inference.contract import keys
from market_inference.contract.errors import InvalidRequestError, UnauthenticatedError


class Keyring:
    def __init__(self, *known: keys.Key) -> None:
        self.known = keys.Keys(known)
        self.asked = 0

    def find(self, secret: str) -> keys.Key | None:
        self.asked += 1
        return self.known.find(secret)


async def test_the_same_metadata_are_looked_up_once_a_loop_turn():
    secret, key = keys.issue("me")
    ring = Keyring(key)
    callers = Callers(Authenticator(ring))
    sent = (("authorization", f"Bearer {secret}"), ("x-priority", "batch"), ("x-request-id", "mine"))
    caller = callers.of(sent)
    assert (caller.admitted().name, caller.priority, caller.request_id) == ("me", "batch", "mine")
    assert callers.of(tuple(sent)) is caller
    assert callers.of(sent[:1]).priority == "interactive"
    assert ring.asked == 2
    ring.known = keys.Keys([])
    await asyncio.sleep(0)
    with pytest.raises(UnauthenticatedError):
        callers.of(sent).admitted()


async def test_each_refused_caller_has_an_error_of_its_own_and_the_public_part_of_its_key():
    secret, _ = keys.issue("me")
    callers = Callers(Authenticator(Keyring()))
    first, second = (callers.of((("x-api-key", secret),)) for _ in range(2))
    assert first.client is not second.client
    assert first.credential == keys.public_part(secret) != ""


def test_a_priority_that_does_not_exist_is_refused_by_name():
    secret, key = keys.issue("me")
    callers = Callers(Authenticator(Keyring(key)))

    async def look(priority):
        return callers.of((("x-api-key", secret), ("x-priority", priority)))

    with pytest.raises(InvalidRequestError, match=r"x-priority.*one of interactive, batch \(got 'bacth'\)"):
        asyncio.run(look("bacth")).admitted()
    assert asyncio.run(look("batch")).admitted().name == "me"


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        ([("x-api-key", "{mine}"), ("authorization", "Bearer {other}")], False),
        ([("x-api-key", "{mine}"), ("x-api-key", "{other}")], False),
        ([("authorization", "Bearer {other}"), ("authorization", "bearer  {mine}")], False),
        ([("authorization", "Bearer {mine}"), ("x-api-key", "wrong")], False),
        ([("authorization", "Bearer {mine}"), ("x-api-key", "{mine}"), ("x-api-key", " ")], True),
        # Of a proxy that asks for a password of its own.
        ([("authorization", "Basic dTpw"), ("x-api-key", "{mine}")], True),
        ([("authorization", "Bearer"), ("x-api-key", "{mine}")], True),
    ],
)
async def test_different_credentials_in_one_call_are_refused_and_none_of_them_wins(sent, known):
    (mine, my_key), (other, other_key) = keys.issue("me"), keys.issue("other")
    callers = Callers(Authenticator(Keyring(my_key, other_key)))
    caller = callers.of(tuple((name, value.format(mine=mine, other=other)) for name, value in sent))
    if known:
        assert caller.admitted().name == "me"
    else:
        with pytest.raises(UnauthenticatedError, match="different credentials"):
            caller.admitted()
        assert keys.public_part(mine) in caller.credential
