"""The embedded model, loaded once for all sentiment tests."""

from collections.abc import Iterator

import pytest

from models.sentiment import load
from models.sentiment.model import SentimentModel
from tests import torch_threads


@pytest.fixture(scope="session")
def embedded() -> SentimentModel:
    return load(dtype="float32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads.one():
        yield
