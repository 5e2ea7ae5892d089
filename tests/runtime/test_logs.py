"""Lines are JSON, one event each, however they are written, and writing a line never blocks."""

import json
import os
import subprocess
import sys

import pytest

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
    log.info("fifth", extra=logs.fields(number=5, name="bad\\udcff"))
    logs.event(log, logging.INFO, "sixth", {"number": 6, "name": "bad\\udcff"})

asyncio.run(main())
"""


def written(**environment):
    result = subprocess.run(
        [sys.executable, "-c", LINES],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
        timeout=250,
    )
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_a_line_of_a_request_has_the_form_of_every_other_line():
    first, third, fourth, *told = written()
    assert [list(line)[:4] for line in (first, third, fourth)] == [["time", "level", "logger", "event"]] * 3
    assert (first["level"], first["logger"], first["event"], first["number"]) == ("info", "gateway.request", "first", 1)
    assert (third["level"], third["event"], third["text"], third["path"]) == ("warning", "third", "a\nb", "x")
    assert [(line["event"], line["name"]) for line in told] == [("fifth", r"bad\udcff"), ("sixth", r"bad\udcff")]
    assert len(first["time"]) == len(third["time"]) == len("2026-11-22T12:00:00.000+00:00")


def test_no_line_is_lost_where_stderr_has_no_buffer_or_the_loop_ends():
    assert [line["number"] for line in written(PYTHONUNBUFFERED="1")] == [1, 3, 4, 5, 6]


UNREAD = """
import asyncio, logging, sys
from runtime import logs

log = logging.getLogger("gateway.request")

async def main():
    logs.configure("info")
    for number in range(20_000):
        logs.event(log, logging.INFO, "request", {"number": number, "text": "x" * 200})
        log.warning("from a thread or a library", extra=logs.fields(number=number))
        if number % 100 == 0:
            await asyncio.sleep(0)
    print("served", flush=True)
    sys.stdin.readline()
    log.warning("after the reader came back")
    logging.shutdown()

asyncio.run(main())
"""


def test_a_pipe_that_nobody_reads_delays_no_line_and_the_dropped_lines_are_counted():
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "served\n"  # 12 MB of lines into a pipe of 64 KB
        child.stdin.write("\n")
        child.stdin.flush()
        _, written = child.communicate(timeout=250)
    lines = [json.loads(line) for line in written.splitlines()]
    assert child.returncode == 0
    assert lines[0]["number"] == 0
    assert next(line["count"] for line in lines if line["event"] == "log lines dropped") > 10_000


FULL = """
import asyncio, logging, resource
from runtime import logs

log = logging.getLogger("gateway.request")

async def main():
    logs.configure("info")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, most))
    for number in range(10_000):
        logs.event(log, logging.INFO, "request", {"number": number, "text": "x" * 200})
        log.warning("from a thread or a library")
        if number % 100 == 0:
            await asyncio.sleep(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    log.warning("there is room again")
    logging.shutdown()

asyncio.run(main())
"""


def test_lines_for_a_full_disk_are_written_later_or_counted(tmp_path):
    """A limit of the file's size stands for the disk's."""
    file = tmp_path / "log"
    with file.open("wb") as stderr:
        subprocess.run([sys.executable, "-c", FULL], stderr=stderr, check=True, timeout=250)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (dropped,) = [line["count"] for line in lines if line["event"] == "log lines dropped"]
    assert dropped > 10_000
    assert len(lines) - 1 + dropped == 20_001


CLOSED = """
import logging, os
from runtime import listen, logs

logs.configure("info")
descriptor = os.open("/dev/null", os.O_RDONLY)
assert descriptor > 2, descriptor
logging.getLogger("x").warning("unseen")
listen.announce(listen="a:1", metrics="b:2")
"""


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_process_starts_with_closed_standard_streams_and_no_file_takes_their_numbers(closed, tmp_path):
    script = tmp_path / "closed.py"
    script.write_text(CLOSED)
    done = subprocess.run(["sh", "-c", f"exec {sys.executable} {script} {closed}"], timeout=250, check=False)
    assert done.returncode == 0


WARNS = """
import warnings
from runtime import logs
logs.configure("info")
warnings.warn("odd numbers", RuntimeWarning)
"""


def test_a_warning_of_a_library_has_no_path_in_the_log():
    ran = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, check=True, timeout=250)
    (line,) = map(json.loads, ran.stderr.splitlines())
    assert (line["logger"], line["event"]) == ("py.warnings", "RuntimeWarning: odd numbers")
