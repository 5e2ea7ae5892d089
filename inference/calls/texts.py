"""Tokenisation of texts, scheduled like the batches of a model.

Owns the preparation of texts on a CPU thread of its own (the engine "texts"): admission, fair shares between clients,
deadlines and cancellation are those of any batcher.
"""

from collections.abc import Hashable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

TextItem: TypeAlias = tuple[Any, str]
"""(sentiment model, text)."""


class TextPreparation:
    """`models.model.Model[TextItem, list[Chunk]]`: turns texts into chunks for the sentiment model."""

    name, version = "texts", "1"

    def bucket(self, item: TextItem) -> Hashable:
        model, _ = item
        return model.name, model.version

    def units(self, item: TextItem) -> int:
        """Characters."""
        return len(item[1]) + 1

    def run(self, items: Sequence[TextItem]) -> list[Any]:
        chunks: list[Any] = []
        for model, group in groupby(items, itemgetter(0)):
            chunks += model.prepare([text for _, text in group])
        return chunks

    def check(self) -> None:
        """No check here: the sentiment model has a self-test with texts."""
