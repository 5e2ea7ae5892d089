"""`market-inference keys`: issue, list, revoke and rotate the API keys of a gateway's keys file."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from market_inference.cli.commands.options import Number
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from market_inference.contract.keys import Key

EXAMPLES = """
\b
Examples:
  market-inference keys issue --file keys.json --owner research --scope predict --scope status --days 90
  market-inference keys list --file keys.json
  market-inference keys rotate --file keys.json 0f3a9c1b22d4 --overlap-hours 24
  market-inference keys revoke --file keys.json 0f3a9c1b22d4
"""
DAY = 86_400.0

keys_file = click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The keys file (MARKET_GATEWAY_KEYS_FILE of the gateway, which notices a change within seconds).",
)


@click.group(epilog=EXAMPLES)
def keys() -> None:
    """Issue, list, revoke and rotate API keys.

    The file holds hashes, never keys: `issue` and `rotate` print the new key once, on stdout.
    """


@keys.command()
@keys_file
@click.option("--owner", required=True, help="The client's name in logs, limits and fair shares.")
@click.option("--scope", "scopes", multiple=True, help="A right of the key. Repeatable. By default all but training.")
@click.option("--days", type=Number(above=0), help="Lifetime; by default the key does not expire.")
@click.option("--units-per-second", type=Number(above=0), help="Rate instead of the gateway's.")
@click.option("--units-per-day", type=Number(above=0), help="Quota instead of the gateway's.")
def issue(
    path: Path,
    owner: str,
    scopes: tuple[str, ...],
    days: float | None,
    units_per_second: float | None,
    units_per_day: float | None,
) -> None:
    """Make a new key and print it."""
    import time

    from market_inference.contract import keys as store
    from market_inference.contract import methods

    with _edited(path) as known:
        secret, key = store.issue(
            owner,
            scopes or methods.SCOPES,
            expires=0.0 if days is None else time.time() + days * DAY,
            units_per_second=units_per_second or 0.0,
            units_per_day=units_per_day or 0.0,
        )
        known.append(key)
    echo(secret)


@keys.command("list")
@keys_file
def list_keys(path: Path) -> None:
    """Show every key's prefix, owner, scopes and end."""
    import time
    from datetime import UTC, datetime

    from market_inference.contract import keys as store

    try:
        known = store.read(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    for key in known:
        end = datetime.fromtimestamp(key.expires, UTC).isoformat(timespec="seconds") if key.expires else "never"
        state = "  expired" if key.expired(time.time()) else ""
        echo(f"{key.prefix}  {key.owner}  {','.join(key.scopes)}  ends {end}{state}")


@keys.command()
@keys_file
@click.argument("prefix")
def revoke(path: Path, prefix: str) -> None:
    """Make a key invalid."""
    from market_inference.contract import keys as store

    with _edited(path) as known:
        key = store.revoke(known, prefix)
    echo(f"revoked {key.prefix} of {key.owner}", err=True)


@keys.command()
@keys_file
@click.argument("prefix")
@click.option("--overlap-hours", type=Number(least=0), default=24.0, show_default=True, help="Old key's end.")
def rotate(path: Path, prefix: str, overlap_hours: float) -> None:
    """Print a new key with the owner, scopes and limits of an old key; the old key ends after the overlap."""
    from market_inference.contract import keys as store

    with _edited(path) as known:
        secret, _ = store.rotate(known, prefix, overlap_hours * 3600.0)
    echo(secret)


@contextmanager
def _edited(path: Path) -> "Iterator[list[Key]]":
    from market_inference.contract import keys as store

    try:
        with store.edit(path) as known:
            yield known
    except (OSError, ValueError, store.UnknownKeyError) as error:
        raise click.ClickException(str(error.args[0] if isinstance(error, LookupError) else error)) from None
