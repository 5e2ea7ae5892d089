"""Turns of the clients at an HTTP server's event loop."""

import asyncio

from runtime.turns import Turns


async def taken(turns: Turns, client: str) -> None:
    if (begins := turns.take(client)) is not None:
        await begins


async def test_the_first_request_begins_at_once_and_the_clients_take_turns():
    turns, begun = Turns(), []

    async def request(client: str, number: int) -> None:
        await taken(turns, client)
        begun.append(f"{client}{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(request("many", number))
        group.create_task(request("one", 0))
    assert begun == ["many0", "many1", "one0", "many2", "many3"]


async def test_one_request_begins_in_a_turn_of_the_loop():
    turns, begun, turn = Turns(), [], 0

    async def request() -> None:
        await taken(turns, "client")
        begun.append(turn)

    tasks = [asyncio.create_task(request()) for _ in range(5)]
    while not all(task.done() for task in tasks):
        turn += 1
        await asyncio.sleep(0)
    assert len(set(begun)) == 5


async def test_a_request_whose_client_has_left_takes_no_turn():
    turns, begun = Turns(), []

    async def request(name: str) -> None:
        await taken(turns, "client")
        begun.append(name)

    first, gone, last = (asyncio.create_task(request(name)) for name in ("first", "gone", "last"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(first, gone, last, return_exceptions=True)
    assert begun == ["first", "last"]
    await asyncio.wait_for(taken(turns, "client"), 60)
