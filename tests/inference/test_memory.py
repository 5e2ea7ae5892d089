"""Memory levels off over mixed requests, including failing requests: the short form of `make soak`."""

import pytest

from benchmarks.soak import soak

STEP = 100
REQUESTS = 3 * STEP


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_memory_levels_off_over_mixed_requests() -> None:
    steps = [step async for step in soak(REQUESTS, STEP)]
    outcomes = steps[-1][1]
    assert sum(outcomes.values()) == REQUESTS
    assert {"answered", "given up", "UnknownModelError", "InvalidRequestError"} <= set(outcomes)
    # The first step fills caches.
    settled, last = steps[1][0], steps[-1][0]
    assert last.objects - settled.objects < REQUESTS - STEP, "a request that is kept leaves more than one object"
    assert last.host - settled.host < 2**20
    # The allocator settles over some 2,000 requests, by 20 to 30 MB; `make soak` sees it level after them.
    assert last.resident - settled.resident < 40 * 2**20
