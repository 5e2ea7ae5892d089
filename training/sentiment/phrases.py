"""Sentences with known sentiment, generated from templates (phrases.toml and headlines.toml).

phrases.toml: headlines and tweets rarely contain the prose of company announcements: figures compared with last year,
orders, lay-offs, plain facts. The generated sentences add such prose, above all pairs of direction and subject: falling
costs are positive, falling profits negative, and a product description is neutral.

headlines.toml: minimal pairs. A negative and a positive headline share their words except for the relation between
them (widens and narrows, fines and drops the fine, less and more than feared, a figure below and above consensus), so
that a model must read the relation and not the word of polarity. Other headlines name several parties with different
labels, one of them masked.
"""

import itertools
import random
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.sentiment import LABELS
from models.sentiment.company import MASK
from training.sentiment.rows import Row

_PHRASES = Path(__file__).with_name("phrases.toml")
_OWN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("headlines.toml").read_text(encoding="utf-8"))
KINDS = (*_OWN["pairs"], *_OWN["neutral"])
"""The kinds of headlines from our own templates: of minimal pairs, and of neutral headlines."""
# The repeating order of labels: of ten sentences three are negative, four neutral, three positive.
_MIX = (0, 1, 2, 1, 0, 1, 2, 1, 0, 2)


def phrases(count: int, seed: int) -> list[Row]:
    """`count` distinct sentences, reproducible by the seed."""
    author = Author(seed)
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = author.write(_MIX[len(rows) % len(_MIX)])
        rows.setdefault(row.text, row)
    return list(rows.values())


def headlines(count: int, seed: int) -> list[Row]:
    """`count` distinct headlines, two fifths of them neutral, the others in minimal pairs; reproducible by the seed."""
    author = HeadlineAuthor(seed)
    rows: dict[str, Row] = {}
    for write in itertools.cycle((author.pair, author.neutral, author.pair, author.neutral, author.neutral)):
        rows.update((row.text, row) for row in write())
        if len(rows) >= count:
            break
    return list(rows.values())[:count]


def headlines_of(kind: str, count: int, seed: int) -> list[Row]:
    """`count` distinct headlines of one of the KINDS: pairs, or neutral headlines; reproducible by the seed."""
    author = HeadlineAuthor(seed)
    rows: dict[str, Row] = {}
    while len(rows) < count:
        rows.update((row.text, row) for row in author.of(kind))
    return list(rows.values())[:count]


def towards(count: int, seed: int) -> list[Row]:
    """`count` distinct headlines, each with one of its parties masked and labelled; reproducible by the seed."""
    author = HeadlineAuthor(seed)
    rows: dict[str, Row] = {}
    while len(rows) < count:
        rows.update((row.text, row) for row in author.parties())
    return list(rows.values())[:count]


class Author:
    """Generates sentences from a lead, a template of the label, and a word for every slot."""

    def __init__(self, seed: int) -> None:
        self._parts: dict[str, Any] = tomllib.loads(_PHRASES.read_text(encoding="utf-8"))
        self._chance = random.Random(seed)  # noqa: S311 - sampling sentences needs no secrecy

    def write(self, label: int) -> Row:
        """A sentence with the given label."""
        return self._filled(self._chance.choice(self._parts["sentences"][LABELS[label]]), label, self._slots())

    def _filled(self, template: str, label: int, slots: dict[str, str]) -> Row:
        template = self._chance.choice(self._parts["sentences"]["leads"]) + template
        text = template.format_map(slots).format_map(slots)  # twice, because some words contain a slot
        return Row(text[0].upper() + text[1:], label)

    def _slots(self) -> dict[str, str]:
        chance = self._chance
        slots = {name: chance.choice(words) for name, words in self._parts["words"].items()}
        slots |= {f"{name}2": chance.choice(self._parts["words"][name]) for name in ("place", "business")}
        slots |= {name: self._company() for name in ("co", "co2")}
        slots |= {name.capitalize(): self._subject(slots[name]) for name in ("good", "bad", "loss", "ratio")}
        slots["less"], slots["more"] = self._amounts()
        slots["money"], slots["other"] = self._amounts()
        slots["smaller"], slots["small"] = f"EUR 0.{chance.randint(5, 99):02d}", f"EUR {chance.uniform(1, 30):.2f}"
        share = chance.choice((chance.randint(1, 60), round(chance.uniform(0.5, 60), 1)))
        slots["pct"] = f"{share}{slots['percent']}"
        low = chance.uniform(1, 40)
        slots["lowpct"], slots["highpct"] = (
            f"{part:.1f}{slots['percent']}" for part in (low, low * chance.uniform(1.05, 2))
        )
        slots["year"], slots["day"] = str(chance.randint(2003, 2025)), str(chance.randint(1, 28))
        slots["few"] = str(chance.randint(3, 60))
        slots["count"] = str(chance.choice((chance.randint(20, 900), chance.randint(10, 90) * 100)))
        slots["shares"] = f"{chance.randint(10, 99_999) * 100:,}"
        return slots

    def _amounts(self) -> tuple[str, str]:
        """A smaller and a larger sum of money in one unit, close together or far apart."""
        before, after = self._chance.choice(self._parts["money"]["units"])
        low = round(10 ** self._chance.uniform(-1, 3), 1)
        high = round(max(low * self._chance.uniform(1.03, 2.5), low + 0.1), 1)
        return f"{before}{low:g}{after}", f"{before}{high:g}{after}"

    def _company(self) -> str:
        names = self._parts["names"]
        syllables = self._chance.choices(names["beginnings"], k=self._chance.randint(1, 2))
        name = "".join([*syllables, self._chance.choice(names["endings"])])
        return name.capitalize() + str(self._chance.choice(names["forms"]))

    def _subject(self, noun: str) -> str:
        """The noun with an optional owner, to begin a sentence."""
        owner = self._chance.choice(("", "the company's ", f"{self._company()}'s ", "the group's "))
        return owner + noun


class HeadlineAuthor(Author):
    """Generates headlines, with the words of phrases.toml and of headlines.toml, mostly about known companies."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        neutral = [template for templates in _OWN["neutral"].values() for template in templates]
        sentences = _OWN["sentences"] | {"neutral": neutral}
        self._parts |= {"words": self._parts["words"] | _OWN["words"], "sentences": sentences}
        self._pairs = [pair for pairs in _OWN["pairs"].values() for pair in pairs]
        self._towards = [headline for headlines in _OWN["towards"].values() for headline in headlines]

    def pair(self) -> list[Row]:
        """A negative and a positive headline with the same words."""
        return self._pair(self._pairs)

    def of(self, kind: str) -> list[Row]:
        """A pair of the kind, or a neutral headline."""
        if kind in _OWN["pairs"]:
            return self._pair(_OWN["pairs"][kind])
        return [self._filled(self._chance.choice(_OWN["neutral"][kind]), 1, self._slots())]

    def _pair(self, pairs: Sequence[Sequence[str]]) -> list[Row]:
        slots, (negative, positive) = self._slots(), self._chance.choice(pairs)
        return [self._filled(negative, 0, slots), self._filled(positive, 2, slots)]

    def neutral(self) -> list[Row]:
        """A neutral headline."""
        return [self.write(1)]

    def parties(self) -> list[Row]:
        """A headline once for each of its parties, which is masked."""
        slots, headline = self._slots(), self._chance.choice(self._towards)
        return [
            self._filled(headline["text"], label, slots | {party: MASK})
            for label, name in enumerate(LABELS)
            for party in headline.get(name, ())
        ]

    def _slots(self) -> dict[str, str]:
        chance, slots = self._chance, super()._slots()
        slots["co3"], slots["currency2"] = self._company(), chance.choice(self._parts["words"]["currency"])
        earned = chance.uniform(0.02, 4)
        slots["eps_low"], slots["eps_high"] = f"${earned:.2f}", f"${earned * chance.uniform(1.05, 1.8) + 0.01:.2f}"
        fewer = chance.randint(10, 400) * 100
        slots["fewer"], slots["many"] = f"{fewer:,}", f"{fewer + chance.randint(1, 60) * 100:,}"
        activity = chance.uniform(42, 57)
        slots["pmi_low"], slots["pmi_high"] = f"{activity:.1f}", f"{activity + chance.uniform(0.3, 4):.1f}"
        target = chance.randint(5, 400)
        slots["target_low"], slots["target_high"] = f"${target}", f"${target + chance.randint(1, 90)}"
        return slots

    def _company(self) -> str:
        if self._chance.random() < 0.7:
            return str(self._chance.choice(self._parts["words"]["company"]))
        return super()._company()
