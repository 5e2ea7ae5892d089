"""`market-inference sentiment`: texts from arguments, a file or standard input."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

import click

from market_inference.cli.commands.call import Service, service_options

if TYPE_CHECKING:
    from market_inference.client.answers import Sentiment
    from market_inference.client.client import Client

EXAMPLES = """
\b
Examples:
  market-inference sentiment "Chipmaker lifts full-year guidance"
  market-inference sentiment --file headlines.txt
  grep -i earnings news.txt | market-inference sentiment --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("texts", nargs=-1)
@click.option("--file", type=click.File(encoding="utf-8"), help="One text a line; - is stdin.")
@click.option("--model", default="", help="A model that `market-inference models` names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@service_options
def sentiment(service: Service, texts: tuple[str, ...], file: TextIO | None, model: str, as_json: bool) -> None:
    """Classify financial texts.

    Each is negative, neutral or positive. TEXTS are the texts; without any, and without --file, they are read from
    standard input, one a line. The score is P(positive) - P(negative), from -1 to 1.
    """
    source = file or (None if texts else sys.stdin)
    wanted = [*texts, *_lines(source or ())]
    if not wanted:
        raise click.UsageError("no text given")
    with service.client() as client:
        found = _classify(client, wanted, model)
    if as_json:
        from market_inference.cli.commands.output import print_json

        print_json([{"text": text, **asdict(one)} for text, one in zip(wanted, found, strict=True)])
    else:
        _print_table(wanted, found)


def _lines(source: Iterable[str]) -> list[str]:
    return [line.strip() for line in source if line.strip()]


def _classify(client: "Client", texts: list[str], model: str) -> list["Sentiment"]:
    """As many calls as the contract's limit asks for; the first text that fails ends it with its error."""
    from market_inference.cli.commands.limits import max_texts

    size = max_texts()
    batches = (texts[at : at + size] for at in range(0, len(texts), size))
    return [one for batch in batches for one in client.sentiment(batch, model=model)]


def _print_table(texts: list[str], found: list["Sentiment"]) -> None:
    from market_inference.cli.commands.output import console, table

    shown = table("Sentiment", "text", "label", "score", "negative", "neutral", "positive", left=2)
    for text, one in zip(texts, found, strict=True):
        probabilities = (f"{share:.2f}" for share in (one.negative, one.neutral, one.positive))
        shown.add_row(text, one.label, f"{one.score:+.2f}", *probabilities)
    console().print(shown)
