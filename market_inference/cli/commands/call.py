"""The parts that all commands with a call to a service share.

Owns the options for target, key, TLS and timeout, the client made of them, and the text of a failure.
"""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from market_inference.cli.commands.options import Number, gathered
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from market_inference.client.answers import Answers
    from market_inference.client.client import Client
    from market_inference.errors import MarketInferenceError

DEFAULT_TARGET = "127.0.0.1:8470"


@dataclass(frozen=True, slots=True)
class Service:
    """The service that a command calls."""

    target: str
    api_key_file: Path | None
    tls: bool
    tls_ca: Path | None
    timeout: float

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """A client; a failed call becomes a line on stderr and exit status 1, a wrong argument exit status 2.

        Notes on data, such as reversed rows, and on a long wait go to stderr, too.
        """
        # gRPC's C core logs lines such as a GOAWAY of a restarted gateway on its own.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from market_inference.cli.commands.waiting import WaitingClient
        from market_inference.client.connection import TLS
        from market_inference.errors import ArgumentError, InputWarning, MarketInferenceError

        tls = TLS(roots=self.tls_ca) if self.tls or self.tls_ca else None
        with warnings.catch_warnings():
            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = _show_warning
            try:
                with WaitingClient(self.target, api_key=self._key(), tls=tls, timeout=self.timeout) as client:
                    yield client
            except ArgumentError as error:
                raise click.UsageError(str(error)) from None
            except MarketInferenceError as error:
                raise click.ClickException(explain(error)) from None

    def _key(self) -> str | None:
        if self.api_key_file is None:
            return None
        try:
            return self.api_key_file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise click.UsageError(f"--api-key-file {self.api_key_file}: {error}") from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    echo(f"Note: {message}", err=True)


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for the service; the command gets a Service as its first argument."""

    @click.option(
        "--target",
        default=DEFAULT_TARGET,
        show_default=True,
        envvar="MARKET_INFERENCE_TARGET",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The gateway to call.",
    )
    @click.option(
        "--api-key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with the API key; else $MARKET_INFERENCE_API_KEY, else the key of this machine's own gateway.",
    )
    @click.option("--tls", is_flag=True, help="Encrypt, trusting the system's certificate authorities.")
    @click.option(
        "--tls-ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Encrypt, trusting the authorities in this PEM file.",
    )
    @click.option("--timeout", type=Number(above=0), default=30.0, show_default=True, help="Seconds for the call.")
    @wraps(command)
    def run(**options: Any) -> Any:
        return command(gathered(Service, options), **options)

    return run


def fail_if_any_failed(answers: "Answers[Any]") -> None:
    """Exit status 1, with a line on stderr for every item that failed alone."""
    for error in answers.errors.values():
        echo(f"Error: {explain(error)}", err=True)
    if answers.errors:
        sys.exit(1)


def span(seconds: float) -> str:
    """A time in the two largest units, rounded up: "0.5 s", "12 s", "3 min 20 s", "9 h 55 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = math.ceil(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes + (rest > 0), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def explain(error: "MarketInferenceError") -> str:
    """One line: the cause, the way out where known, and the request id of a call that reached the service."""
    hint = f"; try again in {span(error.retry_after)}" if error.retry_after is not None else ""
    reached = f" (request id {error.request_id})" if error.request_id and error.reached else ""
    return f"{' '.join((error.message or error.code).split())}{hint}{reached}"
