"""Answers that nobody reads: the guard between an application and a server, and in a real plane."""

import asyncio
import hashlib
import select
import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import insert
from starlette.types import Message, Receive, Scope, Send

from benchmarks.training.planes import PlaneProcess
from tests.eventually import eventually
from training.plane import identifier
from training.plane.database import Database
from training.plane.guard import MOST_UNREAD_BYTES, SPARED_BYTES, Guard
from training.plane.objects import CHUNK_BYTES
from training.plane.routes.jobs import INLINE_BYTES
from training.plane.schema import uploads


class Exchange:
    """One request to the guard; the server sends an answer in pieces, and the next one while `reads` is set."""

    def __init__(self, guarded: Guard, owner: str, size: int) -> None:
        self.reads, self.began = asyncio.Event(), asyncio.Event()
        self.sent: list[Message] = []
        scope = {"type": "http", "path": "/", "method": "GET", "headers": [], "owner": owner, "size": size}
        self.task = asyncio.create_task(guarded(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        while len(body := message.get("body", b"")) > SPARED_BYTES:
            await self._write({**message, "body": body[:SPARED_BYTES], "more_body": True})
            await self.reads.wait()
            message = {"more_body": False, **message, "body": body[SPARED_BYTES:]}
        await self._write(message)

    async def _write(self, message: Message) -> None:
        self.sent.append(message)
        if "body" in message:
            self.began.set()

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def ask_once(guarded: Guard, credential: str) -> None:
    async def nothing(*_: Message) -> Message:
        return {"type": "http.request"}

    headers = [(b"authorization", credential.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("10.0.0.7", 1)}
    scope["state"] = {"cancel_when_lost": [].append}
    await guarded(scope, nothing, nothing)


async def test_a_caller_takes_turns_by_address_until_its_credential_is_accepted() -> None:
    clients, statuses = [], [200, 200, 200, 401, 401, 200]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        clients.append(scope["state"]["client"])
        if (status := statuses[len(clients) - 1]) == 200:
            scope["state"]["owner"] = "desk"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    guarded = Guard(answer)
    for credential in ("valid", "valid", "another", "valid", "valid", "another"):
        await ask_once(guarded, credential)
    assert clients == ["10.0.0.7", "desk", "10.0.0.7", "desk", "10.0.0.7", "desk"]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["owner"] = scope["owner"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(range(256)) * (scope["size"] // 256)})


async def asked(guarded: Guard, owner: str, size: int) -> Exchange:
    """An exchange that has sent the first bytes."""
    made = Exchange(guarded, owner, size)
    await made.began.wait()
    return made


async def test_unread_answers_of_one_owner_are_bounded() -> None:
    guarded, quarter = Guard(application), MOST_UNREAD_BYTES // 4
    unread = [await asked(guarded, "desk", quarter) for _ in range(4)]
    assert [(one.task.done(), one.status, len(one.body)) for one in unread] == [(False, 200, SPARED_BYTES)] * 4
    refused = await asked(guarded, "desk", quarter)
    await refused.task
    assert (refused.status, b"OVERLOADED" in refused.body) == (429, True)
    for owner, size in (("desk", SPARED_BYTES // 2), ("other", SPARED_BYTES)):
        answer = await asked(guarded, owner, size)
        answer.reads.set()
        await answer.task
        assert (answer.status, len(answer.body)) == (200, size)
    for one in unread:
        one.reads.set()
        await one.task
        assert one.body == bytes(range(256)) * (quarter // 256)
        assert not one.sent[-1]["more_body"]
    large = await asked(guarded, "desk", 2 * MOST_UNREAD_BYTES)  # a lone answer is never refused
    assert large.status == 200
    large.task.cancel()
    await asyncio.wait([large.task])
    assert (await asked(guarded, "desk", MOST_UNREAD_BYTES)).status == 200


def test_an_artifact_that_is_not_read_takes_memory_of_its_owner(tmp_path: Path) -> None:
    few = "from training.plane import guard\nguard.MOST_UNREAD_BYTES = 6_000_000"
    with PlaneProcess(tmp_path, first=few) as plane:
        made, content = identifier.new(), bytes(INLINE_BYTES)
        file = tmp_path / "plane" / "objects" / "uploads" / made
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        row = {
            "id": made, "job": made, "attempt": 1, "owner": "desk", "kind": "artifact", "name": "model",
            "key": f"uploads/{made}", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "step": 0,
            "created_at": 0.0, "complete_at": 0.0, "expires_at": 4e9,
        }  # fmt: skip
        store = Database(f"sqlite:///{tmp_path}/plane/store.db")
        with store.begin() as connection:
            connection.execute(insert(uploads).values(**row))
        store.close()
        path = f"/artifacts/{made}"
        host, port = urlsplit(plane.url).netloc.split(":")
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((host, int(port)))
            request = f"GET /api/training{path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {plane.keys['desk']}\r\n\r\n"
            reader.sendall(request.encode())
            assert reader.recv(15) == b"HTTP/1.1 200 OK"
            refused = plane.ask("GET", path)
            assert (refused.status, refused.json["reason"], refused.headers["Retry-After"]) == (429, "OVERLOADED", "5")
            assert plane.ask("GET", "/jobs").status == 200
        assert eventually(lambda: plane.ask("GET", path), lambda answer: answer.status == 200).content == content


def test_a_chunk_of_a_download_is_a_small_answer() -> None:
    assert CHUNK_BYTES <= SPARED_BYTES


def test_connections_of_strangers_leave_files_for_the_store_and_machines(tmp_path: Path) -> None:
    """The turn of a job failed for want of a descriptor, and used up a try."""
    few = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))"
    with PlaneProcess(tmp_path, first=few) as plane, ExitStack() as open_:
        job = plane.job("succeed")
        host, port = urlsplit(plane.url).netloc.split(":")
        idle = [open_.enter_context(socket.create_connection((host, int(port)))) for _ in range(150)]
        poll = select.poll()
        for one in idle:
            poll.register(one, select.POLLIN)
        # A connection above the limit is closed; one without a descriptor would wait in the backlog.
        assert eventually(lambda: len(poll.poll(100)), lambda closed: closed >= len(idle) - 64)
        open_.close()
        assert plane.finished(job)["state"] == "succeeded"
        log = plane.log.read_text()
        assert "turn failed" not in log
        assert "store away" not in log
