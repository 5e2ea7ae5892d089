"""A wrong spec is refused with index, reason and limit; equal specs give one program."""

import numpy as np
import pytest

from models.indicators import Panel, Spec, SpecError, Task, compile  # noqa: A004

WRONG = [
    (Spec("sma"), "name", "did you mean 'SMA'"),
    (Spec("BBAND"), "name", "did you mean 'BBANDS'"),
    (Spec("¤"), "name", "unknown function"),
    (Spec("MAVP"), "name", "series of periods"),
    (Spec("SMA", {"period": 3}), 'params["period"]', "SMA takes timeperiod"),
    (Spec("SMA", {"TimePeriod": 3}), 'params["TimePeriod"]', "did you mean 'timeperiod'"),
    (Spec("OBV", {"timeperiod": 3}), 'params["timeperiod"]', "OBV takes no parameters"),
    (Spec("RSI", {"timeperiod": 1}), 'params["timeperiod"]', "must be in [2, 100000], got 1"),
    (Spec("RSI", {"timeperiod": 100_001}), 'params["timeperiod"]', "must be in [2, 100000], got 100001"),
    (Spec("RSI", {"timeperiod": 14.5}), 'params["timeperiod"]', "whole number, got 14.5"),
    (Spec("RSI", {"timeperiod": float("nan")}), 'params["timeperiod"]', "got nan"),
    (Spec("RSI", {"timeperiod": float("inf")}), 'params["timeperiod"]', "got inf"),
    (Spec("BBANDS", {"matype": 14}), 'params["matype"]', "must be in [0, 13], got 14"),
    (Spec("SAR", {"acceleration": -0.1}), 'params["acceleration"]', "must be in [0, 3e+37], got -0.1"),
    (Spec("SMA", {}, last=0), "last", "at least 1, got 0"),
]


@pytest.mark.parametrize(("spec", "field", "message"), WRONG)
def test_a_wrong_spec_is_refused_with_index_and_reason(spec: Spec, field: str, message: str) -> None:
    with pytest.raises(SpecError) as refusal:
        compile([Spec("SMA"), spec])
    assert (refusal.value.index, refusal.value.field) == (1, field)
    assert message in refusal.value.message


def test_a_task_without_a_needed_column_is_refused() -> None:
    panel = Panel(close=np.ones(30))
    with pytest.raises(SpecError, match="MFI needs the column high") as refusal:
        Task(panel, compile([Spec("SMA"), Spec("MFI")]))
    assert refusal.value.index == 1


def test_a_program_is_equal_and_hashable_by_value() -> None:
    spelled = compile([Spec("MACD", {"slowperiod": 26, "fastperiod": 12})])
    assert spelled == compile([Spec("MACD")])
    assert hash(spelled) == hash(compile([Spec("MACD")]))
    assert spelled != compile([Spec("MACD", {"fastperiod": 11})])
    assert spelled != compile([Spec("MACD", last=1)])


def test_an_error_names_the_place_of_its_spec() -> None:
    with pytest.raises(SpecError, match="must be at least 1") as refusal:
        compile([Spec("SMA"), Spec("RSI", last=0), Spec("EMA", last=0)])
    assert (refusal.value.index, refusal.value.field) == (1, "last")


def test_a_program_describes_the_layout_of_the_answer() -> None:
    program = compile([Spec("MACD"), Spec("RSI")])
    assert program.outputs == ("macd", "macdsignal", "macdhist", "real")
    assert program.rows == (slice(0, 3), slice(3, 4))
    assert program.needs == {"close"}
