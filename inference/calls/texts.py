"""Tokenisation of texts and the warnings about texts, scheduled like the batches of a model.

Owns the preparation of texts on a CPU thread of its own (the engine "texts"): admission, fair shares between clients,
deadlines and cancellation are those of any batcher.
"""

from collections.abc import Hashable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from market_inference.contract.errors import InvalidRequestError, Violation
from models.sentiment.company import mentions
from models.warning import AnswerWarning

TextItem: TypeAlias = tuple[Any, str, str, int]
"""(sentiment model, text, company or "", index of the text in the request)."""


class PreparedText(NamedTuple):
    """The chunks of a text for the sentiment model, and the doubts about the text."""

    chunks: Sequence[Any]
    warnings: tuple[AnswerWarning, ...]


class TextPreparation:
    """`models.model.Model[TextItem, PreparedText]`: turns texts into chunks for the sentiment model."""

    name, version = "texts", "1"
    fresh_answers = True

    def bucket(self, item: TextItem) -> Hashable:
        model = item[0]
        return model.name, model.version

    def units(self, item: TextItem) -> int:
        """Characters."""
        return len(item[1]) + 1

    def run(self, items: Sequence[TextItem]) -> list[PreparedText | InvalidRequestError]:
        prepared: list[PreparedText | InvalidRequestError] = []
        for model, group in groupby(items, itemgetter(0)):
            forms = [_form(model, text, company, index) for _, text, company, index in group]
            texts = [form for form in forms if isinstance(form, str)]
            chunks = iter(model.prepare(texts))
            for form in forms:
                prepared.append(form if isinstance(form, InvalidRequestError) else _prepared(model, form, next(chunks)))
        return prepared

    def check(self) -> None:
        """No check here: the sentiment model has a self-test with texts."""


PREPARATION: Final = TextPreparation()


def _form(model: Any, text: str, company: str, index: int) -> str | InvalidRequestError:
    """The text as the model judges it; an error when the text does not name its company."""
    if not company:
        return text
    if mentions(text, company):
        return str(model.towards(text, company))
    what = "is not named in the text: give the name as the text has it"
    return InvalidRequestError([Violation(f"about[{index}]", what, "about")])


def _prepared(model: Any, text: str, chunks: Sequence[Any]) -> PreparedText:
    return PreparedText(chunks, model.warnings(text, chunks))
