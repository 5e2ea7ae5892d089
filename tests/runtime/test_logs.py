"""Lines are JSON, one event each, whichever way they are written."""

import json
import os
import subprocess
import sys

LINES = """
import asyncio, logging
from runtime import logs

log = logging.getLogger("gateway.request")

async def main():
    logs.configure("info")
    log.info("first", extra=logs.fields(number=1))
    logs.event(log, logging.DEBUG, "unseen", {"number": 2})
    logs.event(log, logging.WARNING, "third", {"number": 3, "text": "a\\nb", "path": __import__("pathlib").Path("x")})
    await asyncio.sleep(0)
    logs.event(log, logging.INFO, "fourth", {"number": 4})

asyncio.run(main())
"""


def written(**environment):
    result = subprocess.run(
        [sys.executable, "-c", LINES], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_a_line_of_a_request_has_the_form_of_every_other_line():
    first, third, fourth = written()
    assert [list(line)[:4] for line in (first, third, fourth)] == [["time", "level", "logger", "event"]] * 3
    assert (first["level"], first["logger"], first["event"], first["number"]) == ("info", "gateway.request", "first", 1)
    assert (third["level"], third["event"], third["text"], third["path"]) == ("warning", "third", "a\nb", "x")
    assert len(first["time"]) == len(third["time"]) == len("2026-11-22T12:00:00.000+00:00")


def test_no_line_is_lost_where_stderr_has_no_buffer_or_the_loop_ends():
    assert [line["number"] for line in written(PYTHONUNBUFFERED="1")] == [1, 3, 4]
