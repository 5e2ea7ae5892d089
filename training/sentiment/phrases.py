"""Corporate news sentences with known sentiment, generated from templates (phrases.toml).

Headlines and tweets rarely contain the prose of company announcements: figures compared with last year, orders,
lay-offs, plain facts. The generated sentences add such prose, above all pairs of direction and subject: falling costs
are positive, falling profits negative, and a product description is neutral.
"""

import random
import tomllib
from pathlib import Path
from typing import Any

from models.sentiment import LABELS
from training.sentiment.rows import Row

_PARTS = Path(__file__).with_name("phrases.toml")
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


class Author:
    """Generates sentences from a lead, a template of the label, and a word for every slot."""

    def __init__(self, seed: int) -> None:
        self._parts: dict[str, Any] = tomllib.loads(_PARTS.read_text(encoding="utf-8"))
        self._chance = random.Random(seed)  # noqa: S311 - sampling sentences needs no secrecy

    def write(self, label: int) -> Row:
        """A sentence with the given label."""
        sentences = self._parts["sentences"]
        template = self._chance.choice(sentences["leads"]) + self._chance.choice(sentences[LABELS[label]])
        slots = self._slots()
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
