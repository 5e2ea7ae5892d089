"""`python tests/style/prose.py`: the plainness of docstrings and comments, checked by `make lint`.

Counts pronouns and relative words per 1,000 words of docstrings and comments in every top folder. Sentences with many
pronouns and relative clauses are hard to read without knowing the answer; a sentence that names the thing is not.
Exits with 1 when a folder exceeds a limit, and names the files that exceed the limits most. Generated code is left out.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "benchmarks",
    "edge",
    "gateway",
    "inference",
    "market_inference",
    "models",
    "observability",
    "proto",
    "runtime",
    "serverless",
    "tests",
    "training",
)
GENERATED = ROOT / "market_inference" / "contract" / "generated"
LIMIT_PRONOUNS, LIMIT_RELATIVES = 55.0, 6.0
SHOWN = 12

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
PRONOUNS = frozenset(
    _WORD.findall(
        "it its itself they them their that this these those one ones he she his her we us our "
        "nobody nothing somebody anybody everybody each"
    )
)
RELATIVES = frozenset(_WORD.findall("who whom whose whoever what whatever which whichever"))
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|!|pragma|fmt:)")


@dataclass(frozen=True)
class Figures:
    """Counts over some text."""

    words: int = 0
    pronouns: int = 0
    relatives: int = 0

    @classmethod
    def of(cls, text: str) -> "Figures":
        words = [word.lower() for word in _WORD.findall(text)]
        return cls(len(words), sum(word in PRONOUNS for word in words), sum(word in RELATIVES for word in words))

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(self.words + other.words, self.pronouns + other.pronouns, self.relatives + other.relatives)

    def per_thousand(self) -> tuple[float, float]:
        """Pronouns and relative words per 1,000 words."""
        scale = 1000 / max(self.words, 1)
        return self.pronouns * scale, self.relatives * scale

    def excess(self) -> float:
        """The number of pronouns and relative words above the limits; 0 within the limits."""
        return max(0.0, self.pronouns - LIMIT_PRONOUNS * self.words / 1000) + max(
            0.0, self.relatives - LIMIT_RELATIVES * self.words / 1000
        )


def texts(source: str) -> Iterator[str]:
    """The docstrings and the comments of Python source, without directives such as noqa."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not _DIRECTIVE.match(token.string):
            yield token.string.lstrip("# ")


def measured(folder: Path) -> dict[Path, Figures]:
    """The figures of every Python file below a folder."""
    return {
        path: Figures.of(" ".join(texts(path.read_text(encoding="utf-8"))))
        for path in sorted(folder.rglob("*.py"))
        if not path.is_relative_to(GENERATED) and "node_modules" not in path.parts
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> int:
    """Print a line per folder above a limit; returns 1 if there is such a folder."""
    failed = False
    for name in FOLDERS:
        files = measured(ROOT / name)
        total = sum(files.values(), Figures())
        pronouns, relatives = total.per_thousand()
        if not total.excess():
            continue
        failed = True
        say(
            f"{name}: {pronouns:.0f} pronouns and {relatives:.1f} relative words per 1,000 words of docstrings and "
            f"comments (limits {LIMIT_PRONOUNS:.0f} and {LIMIT_RELATIVES:.0f}); the files above the limits:"
        )
        worst = sorted(files, key=lambda path: files[path].excess(), reverse=True)[:SHOWN]
        for path in worst:
            if files[path].excess():
                pronouns, relatives = files[path].per_thousand()
                say(f"  {path.relative_to(ROOT)}: {pronouns:.0f} and {relatives:.1f}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
