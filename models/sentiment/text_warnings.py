"""The warnings of a sentiment: another language, hardly any words, a text longer than the model's window.

Owns the conditions and the texts. The recognition of English is language.py's.
"""

import math
from typing import TypeAlias

from models.sentiment.language import foreign, words
from models.warning import AnswerWarning, WarningCode

Warnings: TypeAlias = tuple[AnswerWarning, ...]

_NAMES = {
    "cs": "Czech", "da": "Danish", "de": "German", "es": "Spanish", "fi": "Finnish", "fr": "French", "hr": "Croatian",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "sv": "Swedish", "tr": "Turkish", "vi": "Vietnamese",
}  # fmt: skip


def examine(text: str, tokens: int, windows: int, *, english: bool) -> Warnings:
    """The warnings about a text of so many ``tokens`` in so many ``windows``.

    ``english``: the model is for English alone.
    """
    found = [_numbers(text), _language(text) if english else None, _length(tokens, windows)]
    return tuple(warning for warning in found if warning is not None)


def _numbers(text: str) -> AnswerWarning | None:
    letters = sum(map(len, words(text)))
    digits = sum(map(str.isdigit, text))
    if digits <= letters and letters:
        return None
    what = "has more digits than letters" if letters else "has no words"
    return AnswerWarning(
        WarningCode.TEXT_MOSTLY_NUMBERS,
        f"the text {what}; the model judges words and does not compare numbers",
        (("letters", (float(letters),)), ("digits", (float(digits),))),
    )


def _language(text: str) -> AnswerWarning | None:
    found = foreign(text)
    if found is None:
        return None
    evidence: tuple[tuple[str, tuple[float, ...]], ...] = ()
    if math.isnan(found.log_odds):
        looks = f"has {found.foreign_share:.0%} of its letters outside the Latin script ({found.nearest})"
    else:
        looks = f"looks more like {_NAMES[found.nearest]} than English"
        evidence = (("log_odds", (round(found.log_odds, 2),)),)
    return AnswerWarning(
        WarningCode.TEXT_NOT_ENGLISH,
        f"the text {looks}; the model was trained on English texts alone, so translate the text first",
        (("foreign_share", (round(found.foreign_share, 3),)), *evidence),
    )


def _length(tokens: int, windows: int) -> AnswerWarning | None:
    if windows < 2:
        return None
    return AnswerWarning(
        WarningCode.TEXT_LONG,
        f"the text has {tokens} tokens, more than the model reads at once; the answer is the mean over {windows} "
        "parts, in which one decisive sentence can vanish: send headline or first paragraph alone",
        (("tokens", (float(tokens),)), ("windows", (float(windows),))),
    )
