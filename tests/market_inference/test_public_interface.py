"""The public names of `import market_inference`."""

import pytest

import market_inference


@pytest.mark.parametrize("name", market_inference.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(market_inference, name).__doc__
    assert name in dir(market_inference)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clint"):
        market_inference.Clint  # noqa: B018
