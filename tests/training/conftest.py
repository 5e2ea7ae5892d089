"""Training tests run on one thread: small matrices gain nothing from more threads, and results are reproducible."""

from collections.abc import Iterator

import pytest

from tests import torch_threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads.one():
        yield
