"""Standard streams that are closed at the start of a process."""

import subprocess
import sys

import pytest

PROGRAM = """
from runtime import stdio
stdio.hold()
import os, sys
held = [os.path.realpath(f"/proc/self/fd/{descriptor}") for descriptor in range(3)]
with open(sys.argv[1], "w") as file:
    print(file.fileno() > 2, *held, file=file)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_devnull_and_no_file_takes_their_place(closed, tmp_path):
    redirects = " ".join(f"{descriptor}>&-" for descriptor in closed)
    command = f'exec "{sys.executable}" -c "$PROGRAM" "$OUT" {redirects}'
    environment = {"PROGRAM": PROGRAM, "OUT": str(tmp_path / "out"), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(
        ["sh", "-c", command], env=environment, check=True, timeout=250, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    apart, *held = (tmp_path / "out").read_text().split()
    assert apart == "True"
    assert [place for place, path in enumerate(held) if path == "/dev/null"] == list(closed)
