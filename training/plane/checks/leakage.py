"""Whether the label stands in the text: a classifier of single words that is far too good.

Owns two probes. One word that stands in most rows of a label and in no other row is the label by another name. Naive
Bayes with add-one smoothing learns on the first four fifths of the rows and answers the rest: real financial news does
not give its sentiment away to single words that well.
"""

import zlib

import numpy as np
import numpy.typing as npt

from training.plane.checks.report import Report

BUCKETS = 1 << 14
MOST_ROWS = 20_000
MOST_PLACES = 20_000_000
"""Words of all rows together: 40 MB."""
FEWEST_ROWS = 200
TOO_GOOD = 0.98
_SHOWN_CHARACTERS = 40
_MOST_WORK = 50_000_000
"""Words times labels of the rows that are answered. For texts of 12 words with 1,000 labels these are all rows."""
_BLOCK = 256
_TELLING_SHARE = 0.6
_TELLING_PURITY = 0.995
Counts = npt.NDArray[np.uint16]  # of at most MOST_ROWS rows
Labels = npt.NDArray[np.int64]


class LeakProbe:
    """Fed with rows in order, then asked once."""

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[np.uint16]] = []
        self._places = 0
        self._labels: list[int] = []
        self._names: dict[int, str] = {}

    def add(self, words: list[str], label: int) -> None:
        """Take a row in, as duplicates.words() gives the text."""
        if len(self._rows) >= MOST_ROWS or self._places >= MOST_PLACES:
            return
        found = {zlib.crc32(word.encode()) % BUCKETS: word for word in words}
        for place, word in found.items():
            self._names.setdefault(place, word[:_SHOWN_CHARACTERS])
        # Numbers of two bytes: a row of ten thousand characters would take a hundred thousand bytes as Python's.
        self._rows.append(np.fromiter(sorted(found), np.uint16, len(found)))
        self._places += len(found)
        self._labels.append(label)

    def finish(self, report: Report) -> None:
        """Report a word equivalent to a label, and an implausibly high accuracy."""
        if len(self._rows) < FEWEST_ROWS or len(set(self._labels)) < 2:
            return
        cut = len(self._rows) * 4 // 5
        classes, label_of = np.unique(self._labels, return_inverse=True)
        counts = self._counts(label_of[:cut], len(classes))
        rows = np.bincount(label_of[:cut], minlength=len(classes))
        asked = self._asked(cut, len(classes))
        accuracy = self._accuracy(counts, rows, label_of, cut, asked)
        report.facts["words_alone_accuracy"] = round(accuracy, 4)
        usual = np.bincount(label_of[cut:asked]).max() / (asked - cut)
        if word := self._telling(counts, rows):
            report.warn("leak", 0, f"the word {word!r} stands in most rows of one label and in no other", word=word)
        elif accuracy > TOO_GOOD and usual < TOO_GOOD - 0.05:
            report.warn("leak", 0, f"single words alone give {accuracy:.1%} of the labels: is the label in the text?")

    def _counts(self, label_of: Labels, classes: int) -> Counts:
        """Rows that hold a word [buckets, classes], of the first rows."""
        counts = np.zeros((BUCKETS, classes), np.uint16)
        for places, label in zip(self._rows, label_of, strict=False):
            counts[places, label] += 1
        return counts

    def _asked(self, cut: int, classes: int) -> int:
        """The end of the rows that are answered: those from `cut` on that take _MOST_WORK together."""
        work = np.cumsum([classes * len(places) for places in self._rows[cut:]])
        return cut + max(1, int(np.searchsorted(work, _MOST_WORK, "right")))

    def _accuracy(self, counts: Counts, rows: Labels, label_of: Labels, cut: int, asked: int) -> float:
        words = counts.sum(0, np.float64) + BUCKETS
        priors = np.log(rows / cut + 1e-9)
        right = 0
        for places, label in zip(self._rows[cut:asked], label_of[cut:asked], strict=True):
            score = np.zeros(len(rows))
            for start in range(0, len(places), _BLOCK):
                weights = np.log((counts[places[start : start + _BLOCK]] + 1.0) / words)
                weights[0] += score
                score = weights.sum(0)
            right += int((score + priors).argmax() == label)
        return right / (asked - cut)

    def _telling(self, counts: Counts, rows: Labels) -> str:
        """The word that stands in the largest share of one label's rows, of the words with that label alone; or ""."""
        best = np.zeros(BUCKETS)
        for start in range(0, BUCKETS, _BLOCK):
            found = counts[start : start + _BLOCK].astype(np.float64)
            share = found / np.maximum(rows, 1)
            pure = found >= _TELLING_PURITY * np.maximum(found.sum(1, keepdims=True), 1)
            best[start : start + _BLOCK] = np.where(pure & (share >= _TELLING_SHARE), share, 0.0).max(1)
        return self._names.get(int(best.argmax()), "") if best.any() else ""
