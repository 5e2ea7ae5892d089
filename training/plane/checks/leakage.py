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
_TELLING_SHARE = 0.6
_TELLING_PURITY = 0.995


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
        counts, classes = self._counts(cut)
        accuracy = self._accuracy(counts, classes, cut)
        report.facts["words_alone_accuracy"] = round(accuracy, 4)
        usual = max(np.bincount(np.searchsorted(classes, self._labels[cut:]))) / (len(self._rows) - cut)
        if word := self._telling(counts, classes, cut):
            report.warn("leak", 0, f"the word {word!r} stands in most rows of one label and in no other", word=word)
        elif accuracy > TOO_GOOD and usual < TOO_GOOD - 0.05:
            report.warn("leak", 0, f"single words alone give {accuracy:.1%} of the labels: is the label in the text?")

    def _counts(self, cut: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Rows that hold a word [classes, buckets], of the first `cut` rows."""
        classes = np.unique(self._labels)
        counts = np.zeros((len(classes), BUCKETS))
        for places, label in zip(self._rows[:cut], self._labels[:cut], strict=True):
            counts[np.searchsorted(classes, label), places] += 1
        return counts, classes

    def _accuracy(self, counts: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], cut: int) -> float:
        weights = np.log((counts + 1) / (counts.sum(1, keepdims=True) + BUCKETS))
        priors = np.log(np.array([np.mean(np.array(self._labels[:cut]) == one) for one in classes]) + 1e-9)
        right = 0
        for places, label in zip(self._rows[cut:], self._labels[cut:], strict=True):
            right += int(classes[int((weights[:, places].sum(1) + priors).argmax())] == label)
        return right / (len(self._rows) - cut)

    def _telling(self, counts: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], cut: int) -> str:
        """The word that stands in the largest share of one label's rows, of the words with that label alone; or ""."""
        rows = np.array([np.sum(np.array(self._labels[:cut]) == one) for one in classes])
        share = counts / np.maximum(rows, 1)[:, None]
        pure = counts >= _TELLING_PURITY * np.maximum(counts.sum(0), 1)
        telling = np.where(pure & (share >= _TELLING_SHARE), share, 0.0).max(0)
        return self._names.get(int(telling.argmax()), "") if telling.any() else ""
