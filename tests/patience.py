"""Settings for services beside other processes that keep all cores busy."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def patient() -> Iterator[None]:
    """Gateways started in the block wait a minute for a replica: the load of a model stalls the replica for a while."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MARKET_GATEWAY_HEALTH_TIMEOUT", "60")
        yield
