"""`make pictures`: the demo's chart and `market-inference top` as PNG files, and all pictures of a folder made small.

Owns the load for `top`, and the sizes. tests/edge/test_page.py takes the screenshots of the page. Argument: the folder
of the pictures.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

import market_inference
from market_inference import errors
from market_inference.cli.top.board import board
from market_inference.cli.top.services import Services
from market_inference.cli.top.view import View

NODE = Path(__file__).parents[1] / "clients" / "node"
BROWSER = Path(__file__).with_name("picture.mjs")
FONT = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
CALLERS, COLUMNS, ROWS = 4, 80, 24
# The default of `top --interval`.
INTERVAL_SECONDS = 2.0
CHART_PIXELS = 1200
COLOURS = 256
# The template of a page for rich; a row of the terminal is a line of the element.
TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
@font-face {{ font-family: terminal; src: url(data:font/ttf;base64,%s); }}
#picture {{ margin: 0; padding: 12px; width: %dch; font: 15px/19px terminal; white-space: pre;
  color: {foreground}; background: {background}; display: inline-block; }}
</style><pre id="picture">{code}</pre>
"""


def main(folder: Path) -> None:
    """Add forecast.png and top.png to `folder`, and reduce every PNG file there to a palette."""
    with tempfile.TemporaryDirectory() as scratch:
        chart(Path(scratch), folder / "forecast.png")
        top(Path(scratch), folder / "top.png")
    for picture in sorted(folder.glob("*.png")):
        reduce(picture)


def chart(scratch: Path, picture: Path) -> None:
    """The chart of `market-inference demo`."""
    drawn = scratch / "forecast.png"
    command = [sys.executable, "-m", "market_inference", "demo", "--output", str(drawn)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    with Image.open(drawn) as image:
        image.convert("RGB").resize((CHART_PIXELS, image.height * CHART_PIXELS // image.width)).save(picture)


def top(scratch: Path, picture: Path) -> None:
    """The view of `market-inference top` in a terminal of 80 by 24, for a pair under load."""
    out = Console(
        width=COLUMNS, height=ROWS, force_terminal=True, color_system="standard", record=True, file=io.StringIO(),
        highlight=False, markup=False,
    )  # fmt: skip
    with market_inference.Pair(state=scratch / "state") as pair:
        pair.wait_loaded()
        watched = Services([pair.metrics["gateway"]], [pair.metrics["inference"]], timeout=10.0)
        with watched, load(pair) as interval_over:
            watched.look()
            interval_over.wait(60)
            out.print(View(board(watched.look()), fitted=True))
    form = TERMINAL % (b64encode(FONT.read_bytes()).decode(), COLUMNS)
    page = scratch / "top.html"
    page.write_text(out.export_html(theme=MONOKAI, code_format=form, inline_styles=True), encoding="utf-8")
    subprocess.run(
        [shutil.which("node") or "node", str(BROWSER), page.as_uri(), str(picture)],
        env={**os.environ, "NODE_FOLDER": str(NODE)},
        check=True,
        timeout=120,
    )


@contextmanager
def load(pair: market_inference.Pair) -> Iterator[threading.Event]:
    """Calls of all methods, and a few to an unknown model, until the end of `with`.

    The event is set INTERVAL_SECONDS after the start.
    """
    interval_over, ended = threading.Event(), threading.Event()
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.01, 500)))

    def call() -> None:
        with pair.client() as client:
            while not ended.is_set():
                client.predict(closes, horizon=10)
                client.predict(closes[-250:], horizon=20)
                client.sentiment(["Chipmaker lifts full-year guidance", "Regulator opens probe into lender"])
                client.indicators({"close": closes}, ["RSI", "MACD"])

    def mistake() -> None:
        with pair.client() as client:
            while not ended.wait(0.25):
                try:
                    client.predict(closes, horizon=10, model="no-such-model")
                except errors.NotFoundError:
                    continue

    timer = threading.Timer(INTERVAL_SECONDS, interval_over.set)
    with ThreadPoolExecutor(CALLERS + 1) as pool:
        calls = [pool.submit(mistake), *(pool.submit(call) for _ in range(CALLERS))]
        timer.start()
        try:
            yield interval_over
        finally:
            timer.cancel()
            ended.set()
        for one in calls:
            one.result()


def reduce(picture: Path) -> None:
    """Rewrite a PNG file with a palette of COLOURS; a file with a palette stays."""
    with Image.open(picture) as image:
        if image.mode == "P":
            return
        small = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
