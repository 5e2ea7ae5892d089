"""Items of one call distributed over the requests that the contract's limits ask for.

Owns the limits on the number of items and on bytes, read from the contract, and the cut between two requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from market_inference.contract import methods

T = TypeVar("T")
# What a request holds beside its items: indicators with parameters, quantiles, names.
_RESERVED_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    items: int
    size_bytes: int


@cache
def limits(method: str, field: str) -> Limits:
    """The limits of a method's list of items."""
    row = methods.METHODS[method]
    items: Any = row.request.DESCRIPTOR.fields_by_name[field]
    return Limits(int(methods.field_rules(items).repeated.max_items), row.max_request_bytes)


def cut(items: Sequence[T], sizes: Sequence[int], limit: Limits) -> list[tuple[T, ...]]:
    """The items in order, as few batches as the limits allow; `sizes` [n] are the items' bytes.

    An item that is too large on its own makes a batch of its own, for the service to refuse.
    """
    made: list[list[T]] = []
    held = 0
    for item, size in zip(items, sizes, strict=True):
        full = not made or len(made[-1]) == limit.items or held + size > limit.size_bytes - _RESERVED_BYTES
        if full:
            made.append([])
            held = 0
        made[-1].append(item)
        held += size
    return [tuple(batch) for batch in made]
