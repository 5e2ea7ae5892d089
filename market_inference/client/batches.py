"""The items of one call distributed over requests within the contract's limits.

Owns the limits on the number of items, on bytes of a request and on bytes of an answer, read from the contract, and the
cut between two requests.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

from market_inference.contract import methods

T = TypeVar("T")
# For the parts of a request or an answer beside the items: indicators with parameters, quantiles, names.
_RESERVED_BYTES = 256 * 1024


class Size(NamedTuple):
    """The bytes of an item in the request, and of its answer."""

    request: int
    answer: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one request: items, bytes, and bytes of the answer."""

    items: int
    request_bytes: int
    answer_bytes: int


@cache
def limits(method: str, field: str) -> Limits:
    """The limits of a method with the list of items `field`."""
    row = methods.METHODS[method]
    return Limits(methods.most_items(row.request, field), row.max_request_bytes, row.max_answer_bytes or sys.maxsize)


def cut(items: Sequence[T], sizes: Sequence[tuple[int, int]], limit: Limits) -> list[tuple[T, ...]]:
    """The items in order, in as few batches as the limits allow; `sizes` [n] as in Size.

    An item above a limit on its own makes a batch of its own, for the service to refuse.
    """
    most_request, most_answer = limit.request_bytes - _RESERVED_BYTES, limit.answer_bytes - _RESERVED_BYTES
    request, answer = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
    if 0 < len(items) <= limit.items and request <= most_request and answer <= most_answer:
        return [tuple(items)]
    made: list[list[T]] = []
    request = answer = 0
    for item, size in zip(items, sizes, strict=True):
        request, answer = request + size[0], answer + size[1]
        if not made or len(made[-1]) == limit.items or request > most_request or answer > most_answer:
            made.append([])
            request, answer = size
        made[-1].append(item)
    return [tuple(batch) for batch in made]
