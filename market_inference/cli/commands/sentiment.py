"""`market-inference sentiment`: texts from arguments, a file or standard input."""

import codecs
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from market_inference.cli.commands.call import Service, explain, service_options
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from market_inference.client.answers import Answers, Sentiment

EXAMPLES = """
\b
Examples:
  market-inference sentiment "Chipmaker lifts full-year guidance"
  market-inference sentiment --file headlines.txt
  grep -i earnings news.txt | market-inference sentiment --json
"""
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class Line:
    """A text and its place for errors: "news.txt line 3", or "text 2" for an argument."""

    text: str
    place: str


@click.command(epilog=EXAMPLES)
@click.argument("texts", nargs=-1)
@click.option("--file", type=click.File("rb"), help="One text per line; - is standard input.")
@click.option("--encoding", default="", help="The encoding of the file; by default UTF-8, or UTF-16 with its mark.")
@click.option("--about", default=None, help="A company that every text names: the sentiment towards it.")
@click.option("--model", default="", help="A model that `market-inference models` names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@service_options
def sentiment(
    service: Service,
    texts: tuple[str, ...],
    file: BinaryIO | None,
    encoding: str,
    about: str | None,
    model: str,
    as_json: bool,
) -> None:
    """Classify financial texts.

    A text is negative, neutral or positive. TEXTS are the texts; without TEXTS and --file, the command reads standard
    input, one text per line. The score is P(positive) - P(negative), from -1 to 1. If the service refuses a text,
    standard error names the text, the other texts are answered, and the exit status is 1. A warning names a text with a
    doubtful label, such as a text in another language than English.
    """
    source = file or (None if texts else sys.stdin.buffer)
    wanted = [Line(text, f"text {at}") for at, text in enumerate(texts, start=1)]
    if source is not None:
        wanted += _lines(source, encoding)
    if not wanted:
        raise click.UsageError("no text given")
    with service.client() as client:
        found = client.sentiment([line.text for line in wanted], about=about, model=model)
    if as_json:
        from market_inference.cli.commands.output import print_json

        print_json([{"text": wanted[at].text, **_document(one)} for at, one in found.answered.items()])
    else:
        _print_table(wanted, found)
    for at, error in found.errors.items():
        echo(f"Error: {wanted[at].place}: {explain(error)}", err=True)
    if found.errors:
        raise SystemExit(1)


def _document(one: "Sentiment") -> dict[str, Any]:
    document = asdict(one)
    del document["source"]
    return document


def _lines(source: BinaryIO, encoding: str) -> list[Line]:
    """The lines with text. Raises click.UsageError with the number of the first line in another encoding."""
    named = getattr(source, "name", "<stdin>")
    name = "standard input" if named in ("<stdin>", 0) else str(named)
    data = source.read()
    chosen = encoding or next((found for mark, found in _MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(chosen)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        shown = "UTF-8" if chosen == "utf-8-sig" else chosen
        raise click.UsageError(f"{name}: line {line} is not {shown}: give --encoding, such as cp1252") from None
    except LookupError:
        raise click.UsageError(f"--encoding: {encoding!r} is not a known encoding, such as cp1252") from None
    lines = enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
    return [Line(line.strip(), f"{name} line {at}") for at, line in lines if line.strip()]


def _print_table(wanted: list[Line], found: "Answers[Sentiment]") -> None:
    from market_inference.cli.commands.output import console, table

    if not found.answered:
        return
    shown = table("Sentiment", "text", "label", "score", "negative", "neutral", "positive", left=2)
    for at, one in found.answered.items():
        probabilities = (f"{share:.2f}" for share in (one.negative, one.neutral, one.positive))
        shown.add_row(wanted[at].text, one.label, f"{one.score:+.2f}", *probabilities)
    out = console()
    out.print(shown)
    for at, one in found.answered.items():
        for doubt in one.warnings:
            out.print(f"warning: {wanted[at].place}: {doubt.message}", style="yellow")
