"""The interface of every model.

Owns the protocol shared by the three kinds of model; the computations are in forecast/, sentiment/ and indicators/.
"""

from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from typing import Protocol, TypeVar

Item = TypeVar("Item", contravariant=True)
Answer = TypeVar("Answer", covariant=True)


class ModelUnavailableError(Exception):
    """A model cannot be loaded, because a package, file or device is missing; the message names it and the remedy."""


def require(needed_by: str, extra: str, *packages: str) -> None:
    """Raise ModelUnavailableError, with the command that installs the extra, unless all packages are installed.

    No package is imported.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ModelUnavailableError(
                f"{needed_by} needs the package {package}, which is not installed: "
                f"pip install -c constraints/runtime.txt -e '.[{extra}]' in the checkout"
            )


class Model(Protocol[Item, Answer]):
    """A loaded model. One thread calls run(); the other methods are cheap, pure and safe from any thread.

    `fresh_answers = True` in a class says that run() keeps no array of an answer and no memory of such an array. The
    engine copies the answers of every other class, of a subclass too, before the next run.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def bucket(self, item: Item) -> Hashable:
        """Items with equal buckets may share a batch."""
        ...

    def units(self, item: Item) -> int:
        """The item's padded size: points, tokens, or bars times functions. The unit of a batch's budget."""
        ...

    def run(self, items: Sequence[Item]) -> Sequence[Answer]:
        """Compute one batch. No answer depends on other items of the batch. Raises if the batch cannot be computed.

        The answers are in the order of the items, one each. The items are a tuple, and their arrays are read-only.
        """
        ...

    def check(self) -> None:
        """Run a small real input and compare the answer with the stored answer. Raises if the two differ."""
        ...
