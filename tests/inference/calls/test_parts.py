"""A costly panel is computed in parts, and answered as a whole."""

import numpy as np
import pytest

from inference.build import build
from inference.calls.call import ReplicaCall
from inference.calls.parts import PART_UNITS, PanelParts
from inference.config import Config
from market_inference.contract.errors import InternalError, InvalidRequestError
from market_inference.contract.generated import inference_pb2 as pb
from models.indicators import Panel, Spec, Task, compile, load  # noqa: A004
from models.indicators.running_sums import SpoiltSumsError

COSTLY = compile([Spec("CCI", {"timeperiod": 4000.0 + at}, last=2 + at % 2) for at in range(4)] + [Spec("MACD")])


def panel(bars: int) -> Panel:
    close = 100 + np.sin(np.arange(float(bars)))
    return Panel(close=close, high=close + 1, low=close - 1)


def test_a_cheap_panel_is_one_part():
    tasks = [Task(panel(200), COSTLY)]
    parts = PanelParts(tasks, frozenset(), range(len(tasks)))
    assert parts.tasks is tasks
    assert parts.join(["answer"]) == ["answer"]


def test_the_parts_of_a_panel_have_a_bounded_cost_and_the_bits_of_the_whole():
    tasks = [Task(panel(bars), COSTLY) for bars in (9000, 100, 9000)]
    parts = PanelParts(tasks, frozenset(), range(len(tasks)))
    assert parts.counts == [5, 1, 5]
    assert all(
        len(task.program.calls) == 1 or task.program.units(task.panel.bars) <= PART_UNITS for task in parts.tasks
    )
    model = load()
    joined = parts.join(model.run(parts.tasks))
    for found, expected in zip(joined, model.run(tasks), strict=True):
        assert all(map(np.array_equal, map(np.nan_to_num, found), map(np.nan_to_num, expected)))
        assert len(found) == len(expected)


def test_an_error_of_a_part_is_the_error_of_the_panel():
    parts = PanelParts([Task(panel(9000), COSTLY)] * 2, frozenset(), range(2))
    error = InternalError()
    outcomes = [[number] for number in range(10)]
    outcomes[7] = error
    assert parts.join(outcomes) == [[0, 1, 2, 3, 4], error]


def test_the_parts_of_a_withdrawn_panel_are_withdrawn_too():
    withdrawn: set[int] = set()
    parts = PanelParts([Task(panel(9000), COSTLY)] * 2, withdrawn, range(2))
    assert 6 not in parts.withdrawn
    withdrawn.add(1)
    assert [at for at in range(10) if at in parts.withdrawn] == [5, 6, 7, 8, 9]


async def test_a_request_in_parts_is_answered_whole():
    parts = build(Config(device="cpu", _env_file=None))
    try:
        close = panel(9000)
        request = pb.ComputeIndicatorsRequest()
        request.panels.add(symbol="A", close=close.close.tolist(), high=close.high.tolist(), low=close.low.tolist())
        for at in range(3):
            request.indicators.add(name="CCI", params={"timeperiod": 4000.0 + at}, last=1)
        request.indicators.add(name="MACD", last=1)
        found = pb.ComputeIndicatorsResponse.FromString(
            await parts.servicer.indicators(request.SerializeToString(), ReplicaCall())
        )
        program = compile(
            [Spec("CCI", {"timeperiod": 4000.0 + at}, last=1) for at in range(3)] + [Spec("MACD", last=1)]
        )
        (expected,) = load().run([Task(close, program)])
        indicators = found.panels[0].indicators.indicators
        assert [one.name for one in indicators] == ["CCI", "CCI", "CCI", "MACD"]
        values = [value for one in indicators for output in one.outputs for value in output.values]
        assert values == [row[-1] for row in expected]
    finally:
        parts.close()


def test_a_panel_with_spoilt_sums_gets_an_error_that_names_it():
    whole = PanelParts([Task(panel(100), COSTLY)] * 2, frozenset(), (0, 3)).join([[1], SpoiltSumsError()])
    assert whole[0] == [1]
    assert whole[1].violations[0].field == "panels[3]"
    divided = PanelParts([Task(panel(9000), COSTLY)], frozenset(), (2,)).join([[1], [2], SpoiltSumsError(), [4], [5]])
    assert (divided[0].violations[0].field, divided[0].violations[0].reason) == ("panels[2]", "magnitude")


async def test_a_request_whose_only_panel_has_spoilt_sums_is_refused():
    parts = build(Config(device="cpu", _env_file=None))
    close = np.ones(1000)
    close[::8] = 1e20
    request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=close)], indicators=[pb.IndicatorSpec(name="SUM")])
    request.indicators[0].params["timeperiod"] = 3
    try:
        with pytest.raises(InvalidRequestError, match=r"panels\[0\]: varies too often"):
            await parts.servicer.indicators(request.SerializeToString(), ReplicaCall())
        request.panels.add(close=np.ones(1000))
        answer = await parts.servicer.indicators(request.SerializeToString(), ReplicaCall())
        found = pb.ComputeIndicatorsResponse.FromString(answer).panels
        assert [panel.WhichOneof("result") for panel in found] == ["error", "indicators"]
    finally:
        parts.close()


async def test_an_error_names_the_panel_of_the_request_after_a_refused_panel():
    parts = build(Config(device="cpu", _env_file=None))
    spoilt = np.ones(1000)
    spoilt[::8] = 1e20
    request = pb.ComputeIndicatorsRequest(indicators=[pb.IndicatorSpec(name="SUM", params={"timeperiod": 3})])
    # The service refuses the panel without closes, and the gateway refuses the panel at 1.
    for closes in ([], [1.0], spoilt, np.ones(1000)):
        request.panels.add(close=closes)
    call = ReplicaCall(refused={("panels", 1): InvalidRequestError([]).status("r")})
    try:
        answer = await parts.servicer.indicators(request.SerializeToString(), call)
        found = pb.ComputeIndicatorsResponse.FromString(answer).panels
        assert [one.WhichOneof("result") for one in found] == ["error"] * 3 + ["indicators"]
        assert "panels[0].close" in found[0].error.message
        assert "panels[2]: varies too often" in found[2].error.message
    finally:
        parts.close()
