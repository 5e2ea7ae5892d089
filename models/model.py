"""What every model offers to whatever runs it.

Owns the vocabulary shared by the three kinds of model; how each computes is in forecast/, sentiment/ and indicators/.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item", contravariant=True)
Answer = TypeVar("Answer", covariant=True)


class ModelUnavailableError(Exception):
    """The model cannot be loaded here: a package, file or device is missing. The message says which and what to do."""


class Model(Protocol[Item, Answer]):
    """A loaded model. One thread calls run(); the other methods are cheap, pure and safe from any thread."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def bucket(self, item: Item) -> Hashable:
        """Items with equal buckets may share a batch."""
        ...

    def units(self, item: Item) -> int:
        """The item's padded size: points, tokens or bars times functions. Batches are budgeted in it."""
        ...

    def run(self, items: Sequence[Item]) -> Sequence[Answer]:
        """One batch. An answer never depends on its batch-mates; raises when the whole batch cannot be computed."""
        ...

    def check(self) -> None:
        """Run a small real input and compare with the stored answer; raises when it differs."""
        ...
