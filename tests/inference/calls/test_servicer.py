"""A method for every RPC; the caches of a servicer stay within a byte limit for any requests."""

import inspect
import random
import tracemalloc

import numpy as np
import pytest

from inference.build import build
from inference.calls import answers, servicer
from inference.calls.call import ReplicaCall
from inference.config import Config
from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from models import forecast
from models.forecast import student, volatility
from tests import extras


def different_specs(dice: random.Random) -> list[bytes]:
    names = ("BBANDS", "T3", "MACD", "STOCHRSI")
    asked = [
        pb.IndicatorSpec(name=dice.choice(names[:2]), params={"timeperiod": dice.randint(2, 5000)}) for _ in range(100)
    ]
    return [spec.SerializeToString() for spec in asked]


def of_periods(*periods: float) -> list[bytes]:
    specs = [pb.IndicatorSpec(name="SMA", params={"timeperiod": period}, last=1) for period in periods]
    return [spec.SerializeToString() for spec in specs]


def test_equal_lists_are_compiled_once():
    assert servicer.compile_specs(of_periods(12.0, 26.0)) is servicer.compile_specs(of_periods(12.0, 26.0))


def test_a_new_list_checks_no_indicator_that_was_checked_before():
    """A client that always sends new lists would take half a millisecond of the event loop for each."""
    before = servicer.compile_specs(of_periods(*range(2, 50)))
    first, second = servicer.compile_specs(of_periods(47.0, 3.0)).calls
    assert first is before.calls[45]
    assert second is before.calls[1]


def test_the_size_of_a_program_is_not_underestimated():
    dice = random.Random(1)
    servicer.compile_specs(different_specs(dice))
    tracemalloc.start()
    try:
        before = servicer._programs.size_bytes + servicer._checked.cache.size_bytes
        for _ in range(40):
            servicer.compile_specs(different_specs(dice))
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown <= servicer._programs.size_bytes + servicer._checked.cache.size_bytes - before


async def test_hundreds_of_different_requests_of_100_indicators_stay_within_the_caches_bytes():
    parts = build(Config(device="cpu", _env_file=None))
    dice = random.Random(2)
    closes = np.linspace(90, 110, 40).tolist()
    try:
        for _ in range(256):
            asked = pb.ComputeIndicatorsRequest(panels=[pb.Panel(symbol="S", close=closes)])
            for spec in different_specs(dice):
                asked.indicators.add().MergeFromString(spec)
            await parts.servicer.indicators(asked.SerializeToString(), ReplicaCall())
        # The caches stop to grow after some hundred requests.
        for _ in range(512):
            servicer.compile_specs(different_specs(dice))
        plans = parts.catalog.default("indicators").model._plans
        assert plans._held <= 64 << 20
    finally:
        parts.close()
    caches = (servicer._programs, servicer._checked.cache, answers._row_heads.cache)
    assert [cache.size_bytes <= limit << 20 for cache, limit in zip(caches, (4, 1, 16), strict=True)] == [True] * 3


@pytest.mark.parametrize("function", [student.table, volatility._weights])
def test_tables_by_levels_and_horizon_are_bounded_in_bytes(function):
    for number in range(200):
        if function is student.table:
            function(tuple(sorted({0.01 + 0.0001 * number, *(i / 100 for i in range(2, 99))})), "cpu")
        else:
            function(4096, 1 + number % 40, 100, "cpu")
    assert 0 < function.cache.size_bytes <= 32 << 20


@pytest.mark.parametrize("name", extras.forecasters("vol_rw", "auto", "fracast"))
def test_bucket_and_units_of_a_series_follow_from_its_length(name):
    model, dice = forecast.load(name), np.random.default_rng(3)
    for points in (30, 256, 2000):
        closes = [100 * np.exp(dice.normal(0, 0.1, points)) for _ in range(3)]
        items = [forecast.Series(one, 10, (0.1, 0.9), symbol) for one, symbol in zip(closes, "ABC", strict=True)]
        assert len({(model.bucket(item), model.units(item)) for item in items}) == 1


@pytest.mark.parametrize(
    "method", [one for one in methods.METHODS.values() if one.field and not one.streams], ids=lambda one: one.name
)
def test_every_rpc_that_a_replica_is_asked_for_has_a_method(method):
    assert inspect.iscoroutinefunction(getattr(servicer.Servicer, method.field))
