"""One torch thread for the package: the tensors are small, and the two cores of CI are busy."""

from collections.abc import Iterator

import pytest

from tests import torch_threads


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    with torch_threads.one():
        yield
