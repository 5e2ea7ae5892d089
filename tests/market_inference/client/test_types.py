"""The static types of a user's calls, by the two type checkers that users have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("typed") / "user.py"
CONFIG = PROGRAM.with_name("mypy.ini")
EXPECTED = {
    at: line.partition("# ")[2]
    for at, line in enumerate(PROGRAM.read_text().splitlines(), start=1)
    if line.startswith("reveal_type(")
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "revealed"),
    [
        (
            ["mypy", "--strict", "--explicit-package-bases", f"--config-file={CONFIG}", "--follow-imports=silent"],
            r'user\.py:(\d+): note: Revealed type is "(.*)"',
        ),
        (["basedpyright"], r"user\.py:(\d+):\d+ - information: Type of .* is \"(.*)\""),
    ],
    ids=["mypy", "pyright"],
)
def test_every_call_has_the_type_that_it_returns(command: list[str], revealed: str) -> None:
    # Without the cache of an earlier run, mypy reads pandas and polars for 10 s.
    options = [] if command[0] == "basedpyright" else ["--cache-dir", str(ROOT / ".mypy_cache" / "typed")]
    ran = subprocess.run(
        [sys.executable, "-m", *command, *options, str(PROGRAM)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        timeout=250,
    )
    found = {int(at): kind.replace("market_inference.client.", "") for at, kind in re.findall(revealed, ran.stdout)}
    shown = {at: re.sub(r"\b(answers|bulk|forecast)\.", "", kind) for at, kind in found.items()}
    assert shown == EXPECTED, ran.stdout + ran.stderr
    assert not re.search(r"\berror:|[1-9]\d* errors?", ran.stdout), ran.stdout
