"""Whether a text looks like English: by script, else by trigrams and words.

Owns the test; training/sentiment/language.py owns the fit of the tables, text_warnings.py the warning. The test prefers
silence: a headline of names, tickers and numbers alone counts as English. Measured: no false finding among 13,800
English headlines, tweets and news sentences; found are 126 of the 135 headlines in 22 other languages in
benchmarks/sentiment/languages.csv (27 of the 30 that were written after the constants were chosen).
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FILE = Path(__file__).parent / "languages.npz"
# The least share of a trigram, and the step of the logarithms in FILE.
FLOOR, STEP = 1e-5, 0.05
# A text with a larger share of letters outside the Latin script is not English.
LARGEST_FOREIGN_SHARE = 0.3
# A text is not English when another language is more likely by this natural logarithm. Each English word counts for
# English with WORD_ODDS.
FOREIGN_ODDS, WORD_ODDS = -5.0, 5.0
# Shorter texts are names and tickers in most cases.
LEAST_WORDS, LEAST_TRIGRAMS = 3, 10

_WORD = re.compile(r"[^\W\d_]+")
_NO_WORDS = re.compile(r"(?:https?://|www\.)\S+|[$@#]\w+", re.IGNORECASE)
_LAST_LATIN = "ɏ"  # the end of the block Latin Extended-B; other blocks are looked up by name


class Finding(NamedTuple):
    """A text that does not look like English.

    ``foreign_share``: the share of letters outside the Latin script. ``log_odds``: the logarithm of the odds of English
    against the nearest other language, NaN where the script decided. ``nearest``: the code of this language (ISO
    639-1), or the name of the script in Unicode.
    """

    foreign_share: float
    log_odds: float
    nearest: str


@cache
def _tables() -> tuple[dict[str, int], npt.NDArray[Any], list[str], frozenset[str]]:
    with np.load(FILE, allow_pickle=False) as found:
        grams = {gram: row for row, gram in enumerate(found["trigrams"].tolist())}
        return grams, found["steps"], found["languages"].tolist(), frozenset(found["words"].tolist())


def words(text: str) -> list[str]:
    """The runs of letters in a text, without web addresses, cashtags, mentions and hashtags."""
    return _WORD.findall(_NO_WORDS.sub(" ", text))


def trigrams(found: Sequence[str]) -> Iterator[str]:
    """The trigrams of words in lower case, with a space before and after a word."""
    for word in found:
        padded = f" {word.lower()} "
        for start in range(len(padded) - 2):
            yield padded[start : start + 3]


def foreign(text: str) -> Finding | None:
    """The finding for a text that does not look like English, None for English and for too few words to tell."""
    found = words(text)
    share, script = _script(found)
    if share > LARGEST_FOREIGN_SHARE:
        return Finding(share, math.nan, script)
    rows, steps, languages, english = _tables()
    grams = list(trigrams(found))
    if len(found) < LEAST_WORDS or len(grams) < LEAST_TRIGRAMS:
        return None
    scores = steps[[rows[gram] for gram in grams if gram in rows]].sum(0, dtype=np.int64) * STEP
    nearest = int(scores[1:].argmax()) + 1
    odds = float(scores[0] - scores[nearest]) + WORD_ODDS * len(english.intersection(word.lower() for word in found))
    return Finding(share, odds, languages[nearest]) if odds < FOREIGN_ODDS else None


def _script(found: Sequence[str]) -> tuple[float, str]:
    """The share of letters outside the Latin script, and the script of the first such letter."""
    joined = "".join(found)
    if joined.isascii():
        return 0.0, ""
    foreign_letters = [letter for letter in joined if letter > _LAST_LATIN and not _name(letter).startswith("LATIN")]
    if not foreign_letters:
        return 0.0, ""
    return len(foreign_letters) / len(joined), _name(foreign_letters[0]).partition(" ")[0].capitalize()


def _name(letter: str) -> str:
    return unicodedata.name(letter, "")
