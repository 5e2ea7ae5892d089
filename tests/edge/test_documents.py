"""The curl commands of README and docs/http.md run as they are printed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.edge.test_tables import table

ROOT = Path(__file__).parents[2]
COMMANDS = [
    (page, command)
    for page in ("README.md", "docs/http.md")
    for command in re.findall(
        r"^    (curl (?:.*\\\n)*.*(?:\n {10,}.*)*)", (ROOT / page).read_text(encoding="utf-8"), re.M
    )
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}-{at}" for at, (page, _) in enumerate(COMMANDS)])
def test_a_printed_curl_command_answers(edge, tmp_path, page, command):
    (tmp_path / "demo-output").mkdir()
    for name in ("bars.csv", "demo-output/AAPL.csv"):
        (tmp_path / name).write_bytes(table("yahoo"))
    done = subprocess.run(  # noqa: S602 -- the document's own lines, quoted for a shell
        command.replace("http://127.0.0.1:8472", edge.url).replace(
            "curl ", "curl -sS --fail-with-body --noproxy '*' ", 1
        ),
        shell=True,
        capture_output=True,
        text=True,
        timeout=250,
        cwd=tmp_path,
        env={**os.environ, "KEY": edge.key},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "text/csv" in command:
        assert len(done.stdout.splitlines()) == 6
    elif "/v1/watch" in command:
        assert done.stdout.count("event: update") == 2
        assert done.stdout.rstrip().endswith("event: end\ndata: {}")
    else:
        json.loads(done.stdout)


def test_there_are_commands():
    assert len(COMMANDS) >= 8


def test_the_statuses_of_the_document_are_those_of_the_code():
    from google.rpc import status_pb2

    from edge import problem
    from market_inference.contract import errors

    document = (ROOT / "docs/http.md").read_text(encoding="utf-8")
    told = {
        reason: {int(number) for number in numbers.split(", ")}
        for numbers, reasons in re.findall(r"^\| (\d{3}(?:, \d{3})*) \| (.*) \|$", document, re.M)
        for reason in re.findall(r"`([A-Z_]+)`", reasons)
    }
    assert "OVERLOADED" in told
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ServiceError) and kind.reason in told:
            status = status_pb2.Status(code=kind.code)
            if kind is not errors.RequestTooLargeError:
                assert problem.http_status(status) in told[kind.reason], kind


def test_every_picture_is_small_and_shown_in_a_document():
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    linked = {
        (page.parent / target).resolve()
        for page in documents
        for target in re.findall(r"\]\(([^)\s:]+\.png)\)", page.read_text(encoding="utf-8"))
    }
    pictures = set((ROOT / "docs" / "pictures").glob("*.png"))
    assert len(pictures) >= 6
    assert pictures <= linked
    assert all(picture.is_file() for picture in linked)
    assert {picture.name for picture in pictures if picture.stat().st_size >= 150_000} == set()
