"""Texts that occur more than once: exactly, nearly, and with two labels.

Owns the normal form of a text, and the MinHash signature (Broder, "On the Resemblance and Containment of Documents",
1997) of near duplicates: two texts are near when their sets of words have a Jaccard index of about 0.8
or more. Only texts that agree in one of 16 bands of 4 hashes are compared.
"""

import hashlib
import re

import numpy as np
import numpy.typing as npt

from training.plane.checks.report import Report

MOST_EXACT = 2_000_000
MOST_LABELS = 1000
MOST_NEAR = 200_000
NEAR = 0.75  # of the 64 hashes: an index of 0.8 is estimated with a standard deviation of 0.05
_BANDS, _PER_BAND = 16, 4
_SHORTEST_NEAR = 5
_MOST_IN_BAND = 200
_MOST_PAIRS = 1000
_MOST_KNOWN_WORDS = 250_000
_LONGEST_KNOWN_WORD = 32
"""Hashes of words up to this length are kept, in at most 70 MB; words of 10,000 characters took 40 KB each."""
_CHUNK_ROWS = 4096
_CHUNK_WORDS = 1 << 18
_WORD = re.compile(r"\w+")
Signatures = npt.NDArray[np.uint32]
_SEEDS = np.random.default_rng(1).integers(0, 2**64, _BANDS * _PER_BAND, np.uint64)


def words(text: str) -> list[str]:
    """The normal form: words in lower case."""
    return _WORD.findall(text.lower())


class Duplicates:
    """Fed with rows in order, then asked once. The report says how many rows were compared."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # row and label in one number: a tuple of both takes 50 bytes more
        self._near = _Signatures()
        self.exact = 0
        self.conflicting = 0

    def add(self, row: int, found: list[str], label: int, report: Report) -> None:
        """Take a row in; `found` is words(text)."""
        if len(self._seen) < MOST_EXACT:
            self._compare(row, found, label, report)
        if len(found) >= _SHORTEST_NEAR:
            self._near.add(row, found)

    def _compare(self, row: int, found: list[str], label: int, report: Report) -> None:
        key = _number(" ".join(found))
        first, known = divmod(self._seen.setdefault(key, row * MOST_LABELS + label), MOST_LABELS)
        if first == row:
            return
        self.exact += 1
        if known != label:
            self.conflicting += 1
            report.warn("two_labels", row, f"the text of row {first}, there with label {known}, here {label}")
        else:
            report.warn("duplicate", row, f"the text of row {first}")

    def finish(self, split_row: int, report: Report) -> None:
        """Report rows from `split_row` on that are near a row before: training would see texts of the validation."""
        rows, found = self._near.all()
        report.facts["exact_duplicates_compared"] = len(self._seen) + self.exact
        report.facts["near_duplicates_compared"] = len(rows)
        for first, second in near_pairs(found, rows < split_row):
            report.warn("near_duplicate_across_split", int(rows[second]), f"nearly the text of row {int(rows[first])}")


class _Signatures:
    """MinHash signatures. Of more than MOST_NEAR rows every second one is kept, then every fourth, and so on."""

    def __init__(self) -> None:
        self._word_hashes: dict[str, int] = {}
        self._waiting: list[tuple[int, list[int]]] = []
        self._waiting_words = 0
        self._rows: list[npt.NDArray[np.int64]] = []
        self._signatures: list[Signatures] = []
        self._stride = 1
        self._count = 0

    def add(self, row: int, found: list[str]) -> None:
        self._count += 1
        if self._count % self._stride == 0:
            self._waiting.append((row, [self._hash(word) for word in found]))
            self._waiting_words += len(found)
            if len(self._waiting) >= _CHUNK_ROWS or self._waiting_words >= _CHUNK_WORDS:
                self._take_in()

    def all(self) -> tuple[npt.NDArray[np.int64], Signatures]:
        """Row numbers [n] and signatures [n, 64]."""
        self._take_in()
        rows = np.concatenate([np.zeros(0, np.int64), *self._rows])
        return rows, np.concatenate([np.zeros((0, _BANDS * _PER_BAND), np.uint32), *self._signatures])

    def _hash(self, word: str) -> int:
        known = self._word_hashes.get(word)
        if known is None:
            known = _number(word)
            if len(word) <= _LONGEST_KNOWN_WORD and len(self._word_hashes) < _MOST_KNOWN_WORDS:
                self._word_hashes[word] = known
        return known

    def _take_in(self) -> None:
        if not self._waiting:
            return
        self._rows.append(np.array([row for row, _ in self._waiting], np.int64))
        self._signatures.append(signatures([found for _, found in self._waiting]))
        self._waiting, self._waiting_words = [], 0
        if sum(map(len, self._rows)) > MOST_NEAR:
            rows, kept = self.all()
            self._rows, self._signatures, self._stride = [rows[::2]], [kept[::2]], 2 * self._stride


def signatures(rows: list[list[int]]) -> Signatures:
    """The least of each of 64 hash functions over a row's words, given as hashes of 64 bits; no row is empty."""
    starts = np.cumsum([0, *map(len, rows)][:-1])
    flat = np.array([word for row in rows for word in row], np.uint64)
    columns = [np.minimum.reduceat(_mixed(flat ^ seed), starts) >> np.uint64(32) for seed in _SEEDS]
    return np.stack(columns, axis=1).astype(np.uint32)


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def near_pairs(found: Signatures, left: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs (i, j) of near texts with i in `left` and j not; each j once, at most 1,000 pairs."""
    pairs: dict[int, int] = {}
    for band in range(_BANDS):
        columns = found[:, band * _PER_BAND : (band + 1) * _PER_BAND].astype(np.uint64)
        keys = _mixed(columns[:, 0] << np.uint64(32) | columns[:, 1])
        keys = _mixed(keys ^ (columns[:, 2] << np.uint64(32) | columns[:, 3]))
        for places in _groups(keys):
            ours = places[left[places]][:_MOST_IN_BAND]
            theirs = [int(place) for place in places[~left[places]][:_MOST_IN_BAND] if int(place) not in pairs]
            for place in theirs if len(ours) else ():
                alike = (found[ours] == found[place]).mean(1)
                nearest = int(alike.argmax())
                if alike[nearest] >= NEAR:
                    pairs[place] = int(ours[nearest])
        if len(pairs) >= _MOST_PAIRS:
            break
    return sorted((i, j) for j, i in pairs.items())[:_MOST_PAIRS]


def _groups(keys: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.int64]]:
    """The places of each key that occurs more than once."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    return [places for places in np.split(order, ends) if len(places) > 1]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
