"""Tests on a real GPU, comparing CUDA with the CPU; `make check-cuda` needs no GPU."""

from pathlib import Path

import pytest

from inference.device.cuda import pick_device

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    without = pick_device("auto") != "cuda"
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(without, reason="needs a CUDA device"))


@pytest.fixture
def device() -> str:
    return "cuda"
