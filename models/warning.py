"""A model's doubts about an item's data or about its answer.

Owns the record and the codes; each model decides when a warning is due. The codes are those of WarningCode in the
contract, without the prefix.
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


class AnswerWarning(NamedTuple):
    """One doubt: ``message`` is one English sentence, ``evidence`` pairs names with the figures behind the finding."""

    code: WarningCode
    message: str
    evidence: tuple[tuple[str, tuple[float, ...]], ...]
