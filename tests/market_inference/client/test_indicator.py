"""The forms of an indicator in a request, and the resulting names."""

from typing import Any

import pytest
import talib.abstract

from market_inference.client.indicator import Asked, Indicator, Labels, columns_read, read, read_all
from market_inference.client.inputs.bars import ALL
from market_inference.errors import ArgumentError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("RSI", Indicator("RSI", {})),
        ("SMA:timeperiod=20", Indicator("SMA", {"timeperiod": 20.0})),
        ("BBANDS:timeperiod=20, nbdevup=2.5", Indicator("BBANDS", {"timeperiod": 20.0, "nbdevup": 2.5})),
        (("SMA", {"timeperiod": 20}), Indicator("SMA", {"timeperiod": 20})),
        ({"name": "SMA", "params": {"timeperiod": 20}, "last": 3}, Indicator("SMA", {"timeperiod": 20}, 3)),
        ({"name": "RSI"}, Indicator("RSI", {})),
    ],
)
def test_every_form_means_the_same(spec: object, expected: Indicator) -> None:
    assert read(spec) == expected  # type: ignore[arg-type]
    assert read(expected.label) == Indicator(expected.name, expected.params)


@pytest.mark.parametrize("spec", ["SMA:20", "SMA:timeperiod=x", {"nam": "RSI"}, {"name": "RSI", "lats": 1}, {}])
def test_what_cannot_be_understood_is_refused(spec: object) -> None:
    with pytest.raises(ValueError, match="indicator"):
        read(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", talib.get_functions())
def test_the_columns_that_a_function_reads_are_ta_lib_s(name: str) -> None:
    inputs = talib.abstract.Function(name).input_names.values()
    read_by_it = {column for names in inputs for column in ([names] if isinstance(names, str) else names)}
    assert Indicator(name, {}).columns >= read_by_it & ALL
    if read_by_it <= ALL:
        assert Indicator(name, {}).columns == read_by_it


def test_an_unknown_function_is_sent_every_column() -> None:
    assert columns_read(read_all(["RSI", "NEWFUNCTION"])) == ALL
    assert columns_read(read_all(["RSI", "OBV"])) == {"close", "volume"}


def test_a_pair_of_name_and_parameters_is_one_indicator() -> None:
    assert read_all(("SMA", {"timeperiod": 50})) == [Indicator("SMA", {"timeperiod": 50.0})]
    assert read_all(["RSI", {"name": "SMA"}]) == [Indicator("RSI", {}), Indicator("SMA", {})]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (5, "indicators: expected a name such as"),
        ([5], r"indicators\[0\]: expected an indicator"),
        ([("SMA", {"timeperiod": None})], r"indicators\[0\].params.timeperiod: expected a number, got None"),
        ([("SMA", 50)], r"indicators\[0\].params: expected parameters by name"),
        ([{"name": "SMA", "last": -1}], r"indicators\[0\].last: expected a whole number from 0"),
        ([{"name": 5}], r"indicators\[0\]: expected text, got 5"),
    ],
)
def test_a_wrong_specification_is_refused_by_place(specs: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_all(specs)


def test_one_needs_no_list() -> None:
    assert read_all("RSI") == read_all(["RSI"]) == read_all({"name": "RSI"})


def test_a_name_asked_for_once_stands_for_itself_and_one_asked_for_twice_carries_its_parameters() -> None:
    labels = Labels.of(read_all(["RSI", "EMA:timeperiod=9", "SMA", "SMA:timeperiod=50"]))
    assert labels.names == ("RSI", "EMA", "SMA", "SMA:timeperiod=50")
    assert labels.aliases == {"EMA:timeperiod=9": "EMA"}


def test_the_same_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Labels.of(read_all(["SMA:timeperiod=5", ("SMA", {"timeperiod": 5})]))


SPECS = [
    ["RSI", ("SMA", {"timeperiod": 20}), "EMA:timeperiod=9"],
    ("RSI", "MACD"),
    ("SMA", {"timeperiod": 20}),
    [("SMA", {"timeperiod": 20.0})],
    [("SMA", {"timeperiod": "20"})],
    "RSI",
    {"name": "SMA", "last": 3},
    [],
]


@pytest.mark.parametrize("specs", SPECS, ids=str)
def test_specifications_asked_for_again_are_read_as_the_first_time(specs: Any) -> None:
    first, again = Asked.of(specs), Asked.of(specs)
    assert first == again
    assert list(first.indicators) == read_all(specs)
    assert (first.labels, first.columns) == (Labels.of(first.indicators), columns_read(first.indicators))


def test_what_equals_a_known_specification_is_no_specification() -> None:
    assert Asked.of([("SMA", {"timeperiod": 1})]).indicators[0].params == {"timeperiod": 1}
    with pytest.raises(ArgumentError, match="expected a number, got True"):
        Asked.of([("SMA", {"timeperiod": True})])


def test_a_change_of_a_callers_parameters_is_seen() -> None:
    params = {"timeperiod": 5}
    specs = [("SMA", params)]
    assert Asked.of(specs).indicators[0].params == {"timeperiod": 5}
    params["timeperiod"] = 6
    assert Asked.of(specs).indicators[0].params == {"timeperiod": 6}
