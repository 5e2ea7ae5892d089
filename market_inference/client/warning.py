"""Warnings of the service about an item's data or answer, such as a suspected split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from market_inference.contract.generated import inference_pb2 as pb

_PREFIX = "WARNING_CODE_"


@dataclass(frozen=True, slots=True)
class AnswerWarning:
    """A doubt about the data or the answer; the answer stands.

    `code`: the name in the contract without the prefix, such as "SUSPECTED_SPLIT"; the number as text for a code of a
    newer service. `message`: an English sentence. `evidence`: the figures behind the finding, by name.
    """

    code: str
    message: str
    evidence: Mapping[str, tuple[float, ...]]


def read(messages: Iterable[pb.AnswerWarning]) -> tuple[AnswerWarning, ...]:
    """The warnings of one answer, in the service's order."""
    return tuple(
        AnswerWarning(_code(found.code), found.message, {one.name: tuple(one.values) for one in found.evidence})
        for found in messages
    )


def _code(number: int) -> str:
    known = pb.WarningCode.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix(_PREFIX) if known else str(number)
