"""The bounds of bodies of the training plane."""

import pytest

from training.plane.errors import TooLargeError
from training.plane.guard import Guard

LINE = b"step 120 of 5000, loss 0.6931, rate 0.0003, 812 tokens/s\n"
LOG = LINE * (1_000_000 // len(LINE))  # as much as run.sh sends, with 50,000 commas


async def received(path: str) -> int:
    """The bytes of LOG, sent to the path, that reach the application."""
    size = 0

    async def read(_, receive, send) -> None:
        nonlocal size
        size = len((await receive())["body"])

    async def receive() -> dict:
        return {"type": "http.request", "body": LOG}

    async def send(_) -> None: ...

    await Guard(read)({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
    return size


async def test_the_log_of_a_machine_may_have_any_number_of_commas():
    assert await received("/api/training/jobs/01M8HA6MDY93G3J7MXWPK51RN5/log") == len(LOG)


@pytest.mark.parametrize("path", ["jobs/J/log/x", "jobs/a/b/log", "budgets/log", "jobs/log", "jobs/J/end"])
async def test_a_body_that_the_application_may_parse_has_few_values(path):
    with pytest.raises(TooLargeError, match="values of the body"):
        await received(f"/api/training/{path}")
