"""The threads of torch in tests: small tensors gain nothing from more, and two cores are busy with other tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def one() -> Iterator[None]:
    """Keep torch to one thread, where torch is installed."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
