"""`python -m training.sentiment.language`: fit the tables by which the service recognises English headlines.

Owns the fit of models/sentiment/languages.npz; models/sentiment/language.py reads the tables. Nothing is trained: the
tables are counts of trigrams and words.

Sources: the trigram profiles of langdetect 1.0.9 (Apache-2.0, counted on Wikipedia) for all languages, and the trigrams
and words of English headlines (the rows of --headlines). Only counts are kept.
"""

import argparse
import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from models.sentiment.language import FILE, FLOOR, STEP, trigrams, words

# The first language is English; the others are written in Latin letters and read by many investors.
LANGUAGES = (
    *("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no"),
    *("pl", "cs", "tr", "id", "ro", "hu", "fi", "vi", "hr"),
)
# The most frequent trigrams of each language that are kept. English has more, so that names look English.
KEPT, KEPT_ENGLISH = 300, 1600
# Words of English headlines: in lower case, at least so long, and in at least so many headlines.
LEAST_LETTERS, LEAST_HEADLINES = 4, 8


def main() -> None:
    """Fit and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m training.sentiment.language", description=__doc__)
    parser.add_argument("--profiles", type=Path, required=True, help="the folder langdetect/profiles of langdetect")
    parser.add_argument("--headlines", type=Path, nargs="+", required=True, help="CSV files with a column text")
    parser.add_argument("--out", type=Path, default=FILE, help="default: %(default)s")
    options = parser.parse_args()
    texts = [text for path in options.headlines for text in _texts(path)]
    headlines = _shares(Counter(gram for text in texts for gram in trigrams(words(text))))
    shares = {name: _shares(_profile(options.profiles / name)) for name in LANGUAGES}
    english = shares["en"]
    shares["en"] = {
        gram: (english.get(gram, 0) + headlines.get(gram, 0)) / 2 for gram in english.keys() | headlines.keys()
    }
    grams = sorted({gram for name, own in shares.items() for gram in _frequent(own, name)})
    logs = np.array([[math.log(max(own.get(gram, 0), FLOOR)) for own in shares.values()] for gram in grams])
    steps = np.round((logs - math.log(FLOOR)) / STEP).clip(0, 255).astype(np.uint8)
    np.savez_compressed(
        options.out,
        languages=np.array(LANGUAGES),
        trigrams=np.array(grams),
        steps=steps,
        words=np.array(_english_words(texts)),
    )
    print(f"{len(grams)} trigrams of {len(LANGUAGES)} languages: {options.out}, {options.out.stat().st_size} bytes")


def _texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as lines:
        return [row["text"] for row in csv.DictReader(lines)]


def _profile(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for gram, count in json.loads(path.read_text(encoding="utf-8"))["freq"].items():
        if len(gram) == 3:
            counts[gram.lower()] += count
    return counts


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {gram: count / total for gram, count in counts.items()}


def _frequent(shares: Mapping[str, float], name: str) -> list[str]:
    ranked = sorted(shares, key=lambda gram: (-shares[gram], gram))
    return ranked[: KEPT_ENGLISH if name == "en" else KEPT]


def _english_words(texts: Iterable[str]) -> list[str]:
    counts = Counter(
        word
        for text in texts
        for word in set(words(text))
        if word.isascii() and word.islower() and len(word) >= LEAST_LETTERS
    )
    return sorted(word for word, count in counts.items() if count >= LEAST_HEADLINES)


if __name__ == "__main__":
    main()
