"""The list of functions equals the functions of the installed TA-Lib."""

import pytest
import talib
from talib import abstract

from models.indicators import FUNCTIONS


def test_every_function_of_talib_is_listed() -> None:
    assert set(FUNCTIONS) == set(talib.get_functions())
    assert len(FUNCTIONS) >= 158


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names_defaults_and_lookback_equal_talibs(name: str) -> None:
    function, known = FUNCTIONS[name], getattr(abstract, name)
    assert {parameter.name: parameter.default for parameter in function.parameters} == dict(known.info["parameters"])
    assert [output.name for output in function.outputs] == known.info["output_names"]
    assert function.lookback([parameter.default for parameter in function.parameters]) == known.lookback


def test_talib_refuses_values_outside_the_ranges() -> None:
    def refused(name: str, **params: float) -> bool:
        values = [params.get(parameter.name, parameter.default) for parameter in FUNCTIONS[name].parameters]
        return FUNCTIONS[name].lookback(values) < 0

    for name in ("RSI", "MACD", "BBANDS", "STOCH"):
        for parameter in FUNCTIONS[name].parameters:
            if parameter.integer:
                assert not refused(name, **{parameter.name: parameter.minimum})
                assert refused(name, **{parameter.name: parameter.minimum - 1})
                assert refused(name, **{parameter.name: parameter.maximum + 1})


def test_free_inputs_take_the_columns_of_the_abstract_interface() -> None:
    assert FUNCTIONS["SMA"].columns == ("close",)
    assert FUNCTIONS["BETA"].columns == ("high", "low")
    assert FUNCTIONS["OBV"].columns == ("close", "volume")
    assert FUNCTIONS["MFI"].columns == ("high", "low", "close", "volume")


def test_kinds_of_moving_average_are_numbered_as_in_talib() -> None:
    (kind,) = (parameter for parameter in FUNCTIONS["MA"].parameters if parameter.moving_average)
    assert (kind.minimum, kind.maximum) == (0, max(talib.MA_Type._lookup))
