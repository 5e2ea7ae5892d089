"""The forms of an indicator in a request, and the resulting names."""

import pytest

from market_inference.client.indicator import Indicator, Labels, read, read_all


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


def test_one_needs_no_list() -> None:
    assert read_all("RSI") == read_all(["RSI"]) == read_all({"name": "RSI"})


def test_a_name_asked_for_once_stands_for_itself_and_one_asked_for_twice_carries_its_parameters() -> None:
    labels = Labels.of(read_all(["RSI", "EMA:timeperiod=9", "SMA", "SMA:timeperiod=50"]))
    assert labels.names == ("RSI", "EMA", "SMA", "SMA:timeperiod=50")
    assert labels.aliases == {"EMA:timeperiod=9": "EMA"}


def test_the_same_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Labels.of(read_all(["SMA:timeperiod=5", ("SMA", {"timeperiod": 5})]))
