"""What every command that calls a service has in common.

Owns the options that say which service and how, the client made of them, and the line that a failure becomes.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from market_inference.client.answers import Answers
    from market_inference.client.client import Client
    from market_inference.errors import MarketInferenceError

DEFAULT_TARGET = "127.0.0.1:8470"


@dataclass(frozen=True, slots=True)
class Service:
    """Which service a command calls."""

    target: str
    key_file: Path | None
    tls: bool
    tls_ca: Path | None
    timeout: float

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """A client; an error that a caller can understand becomes a line on stderr and exit status 1."""
        from market_inference.client.client import Client
        from market_inference.client.connection import TLS
        from market_inference.errors import MarketInferenceError

        key = self.key_file.read_text(encoding="utf-8").strip() if self.key_file else None
        tls = TLS(roots=self.tls_ca) if self.tls or self.tls_ca else None
        try:
            with Client(self.target, api_key=key, tls=tls, timeout=self.timeout) as client:
                yield client
        except MarketInferenceError as error:
            raise click.ClickException(explain(error, self.target)) from None
        except (ValueError, TypeError) as error:
            raise click.UsageError(str(error)) from None


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which service; the command gets a Service as its first argument."""

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
    @click.option("--timeout", default=30.0, show_default=True, help="Seconds that the call may take.")
    @wraps(command)
    def run(
        *,
        target: str,
        api_key_file: Path | None,
        tls: bool,
        tls_ca: Path | None,
        timeout: float,
        **own: Any,
    ) -> Any:
        return command(Service(target, api_key_file, tls, tls_ca, timeout), **own)

    return run


def fail_if_any_failed(answers: "Answers[Any]", target: str) -> None:
    """Exit status 1, with a line on stderr for every item that failed alone."""
    for at, error in answers.errors.items():
        symbol = answers.symbols[at] if answers.symbols else ""
        click.echo(f"Error: {symbol}{': ' if symbol else ''}{explain(error, target)}", err=True)
    if answers.errors:
        sys.exit(1)


def explain(error: "MarketInferenceError", target: str) -> str:
    """One line: what was wrong, and what to do about it where that is known."""
    from market_inference import errors

    # Without a reason of the service's own, gRPC made the error on this side.
    if isinstance(error, errors.UnavailableError) and error.reason == error.code:
        if "refused" not in error.message:
            return f"cannot reach {target}: {error.message}"
        return f"nothing answers at {target}; start one with `market-inference serve`, or name another with --target"
    hint = ""
    if isinstance(error, errors.UnauthenticatedError):
        hint = "; set MARKET_INFERENCE_API_KEY or --api-key-file"
    elif error.retry_after is not None:
        hint = f"; try again in {error.retry_after:.3g} s"
    return f"{error.message or error.code}{hint} (request id {error.request_id})"
