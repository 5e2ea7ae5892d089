"""The examples of the README run unchanged; links and make targets in the documents exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = Path(sys.executable).with_name("market-inference")


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PRINTED = (
    ("the 80% interval held", "positive"),
    ("quantiles (500, 10, 9)", "RSI (500, 256)", "0 of 500 failed"),
    ("the newest RSI is",),
)


@pytest.mark.parametrize(("code", "printed"), list(zip(EXAMPLES, PRINTED, strict=True)))
def test_the_python_examples_run(running, code, printed):
    done = subprocess.run(
        [sys.executable, "-c", code.replace("127.0.0.1:8470", running.target)],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "MARKET_INFERENCE_API_KEY": running.key},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in printed:
        assert words in done.stdout


@pytest.mark.parametrize("line", re.findall(r"^    \.venv/bin/market-inference (?!serve)(.*)$", README, re.M))
def test_the_commands_run(running, line, tmp_path):
    closes = [100 + i % 7 for i in range(80)]
    (tmp_path / "demo-output").mkdir()
    (tmp_path / "demo-output" / "AAPL.csv").write_text("close\n" + "\n".join(map(str, closes)), encoding="utf-8")
    done = subprocess.run(  # noqa: S602 -- the README's own lines, quoted for a shell
        f"{COMMAND} {line}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=250,
        cwd=tmp_path,
        env={**os.environ, "MARKET_INFERENCE_API_KEY": running.key, "MARKET_INFERENCE_TARGET": running.target},
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_linked_file_and_heading_exists():
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]+)?\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links {target}"
            if anchor and linked.suffix == ".md":
                assert anchor[1:] in anchors(linked), f"{page.name} links {target}{anchor}"


def test_every_make_target_named_in_the_docs_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.M), f"{page.name} names make {target}"
