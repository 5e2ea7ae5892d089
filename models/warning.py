"""Warnings of a model about the data of an item or about the answer.

Owns the record and the codes; the models own the conditions. The codes are the names of WarningCode in the contract,
without the prefix.
"""

from enum import StrEnum
from typing import NamedTuple


class WarningCode(StrEnum):
    """The kinds of warnings, by the contract's names."""

    OUTLIERS_TREATED = "OUTLIERS_TREATED"
    SUSPECTED_SPLIT = "SUSPECTED_SPLIT"
    STALE_TAIL = "STALE_TAIL"
    FEW_BACKTESTS = "FEW_BACKTESTS"
    COVERAGE_OFF_NOMINAL = "COVERAGE_OFF_NOMINAL"
    TEXT_NOT_ENGLISH = "TEXT_NOT_ENGLISH"
    TEXT_MOSTLY_NUMBERS = "TEXT_MOSTLY_NUMBERS"
    TEXT_LONG = "TEXT_LONG"
    SUSPECTED_BAD_VALUE = "SUSPECTED_BAD_VALUE"
    FEW_CYCLES = "FEW_CYCLES"


class AnswerWarning(NamedTuple):
    """One warning: ``message`` is one English sentence, ``evidence`` are named figures behind the finding."""

    code: WarningCode
    message: str
    evidence: tuple[tuple[str, tuple[float, ...]], ...]
