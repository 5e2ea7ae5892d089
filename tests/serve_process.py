"""`market-inference serve` as a child process, with every port free for the operating system to choose.

Tests run in parallel: two processes on one default port would end each other.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from market_inference.cli.commands.options import PORT
from market_inference.cli.commands.serve import serve

# Harder than the installed script: `python -m` puts the working directory first.
COMMAND = (sys.executable, "-m", "market_inference")
ANY_PORTS = tuple(
    word
    for option in serve.params
    if isinstance(option, click.Option) and option.type is PORT
    for word in (option.opts[0], "0")
)
READY = "Ctrl-C ends it.\n"


@dataclass(frozen=True)
class Serving:
    """A running command and the text that the command printed until every service was loaded."""

    process: subprocess.Popen[str]
    said: str


@contextmanager
def serving(environment: Mapping[str, str], folder: Path) -> Iterator[Serving]:
    """Start the command in `folder`, wait until every service is loaded, and end the command after the block.

    A command that ends before is an AssertionError with everything that the command printed.
    """
    process = subprocess.Popen(
        [*COMMAND, "serve", *ANY_PORTS, "--device", "cpu"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        said = ""
        try:
            for line in process.stdout:
                said += line
                if line == READY:
                    break
            assert said.endswith(READY), said
            yield Serving(process, said)
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()
