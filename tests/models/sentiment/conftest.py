"""The embedded model, loaded once for all sentiment tests."""

from collections.abc import Iterator

import pytest
import torch

from models.sentiment import SentimentModel, load


@pytest.fixture(scope="session")
def embedded() -> SentimentModel:
    return load(dtype="float32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
