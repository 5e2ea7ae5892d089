"""The cut of items into requests within the contract's limits."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from market_inference.client import batches, calls
from market_inference.client.batches import Limits, Size
from market_inference.contract import answer_size, methods

RESERVED = 256 * 1024
SIZES = st.lists(st.builds(Size, st.integers(0, 2 << 20), st.integers(0, 2 << 20)), max_size=60)


@given(sizes=SIZES, most=st.integers(1, 20), room=st.integers(RESERVED + 1, 8 << 20))
def test_every_batch_keeps_the_limits_and_no_two_neighbours_fit_together(
    sizes: list[Size], most: int, room: int
) -> None:
    limit = Limits(most, room, room)
    cut = batches.cut(range(len(sizes)), sizes, limit)
    assert [item for batch in cut for item in batch] == list(range(len(sizes)))
    for at, batch in enumerate(cut):
        total = [sum(sizes[item][part] for item in batch) for part in (0, 1)]
        assert len(batch) == 1 or (len(batch) <= most and max(total) <= room - RESERVED)
        if at:
            first = [sum(sizes[item][part] for item in (*cut[at - 1], batch[0])) for part in (0, 1)]
            assert len(cut[at - 1]) == most or max(first) > room - RESERVED


def test_limits_are_the_contract_s() -> None:
    row = methods.METHODS["Predict"]
    assert batches.limits("Predict", "series") == Limits(256, row.max_request_bytes, row.max_answer_bytes)


def test_answers_above_the_limit_are_split_too() -> None:
    levels = [(at + 1) / 100 for at in range(99)]
    call = calls.predict([[1.0] * 40] * 256, 365, levels, "")
    # Without times, 40 levels fit into one request: the phases of the clock make the difference.
    hours = pd.Series(np.ones(40), index=pd.date_range("2026-01-01", periods=40, freq="h"))
    timed = calls.predict([hours] * 256, 365, levels[:40], "", times=True)
    bars = {f"S{at}": [1.0 + at] * 10_000 for at in range(64)}
    indicators = calls.indicators(bars, [f"SMA:timeperiod={2 + at}" for at in range(100)], 0)
    for made, bound in (
        (call, answer_size.predict),
        (timed, answer_size.predict),
        (indicators, answer_size.indicators),
    ):
        row = methods.METHODS[made.method]
        assert len(made.requests) > 1
        for request in made.requests:
            assert bound(row.twin.FromString(request)) <= row.max_answer_bytes
