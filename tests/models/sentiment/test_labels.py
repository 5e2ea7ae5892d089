"""Label names in configurations, matched to negative, neutral, positive."""

import pytest

from models.model import ModelUnavailableError
from models.sentiment.labels import order


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({0: "positive", 1: "negative", 2: "neutral"}, (1, 2, 0)),
        ({0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}, (0, 1, 2)),
        ({0: "Bullish", 1: "Bearish", 2: "Neutral"}, (1, 2, 0)),
        ({"2": "pos", "0": "neu", "1": "neg"}, (1, 0, 2)),
    ],
)
def test_known_names_are_matched_in_any_order(names: dict[int, str], expected: tuple[int, int, int]) -> None:
    assert order(names) == expected


@pytest.mark.parametrize(
    "names",
    [
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
        {0: "negative", 1: "positive"},
        {0: "negative", 1: "neutral", 2: "positive", 3: "mixed"},
        {0: "negative", 1: "bearish", 2: "positive"},
    ],
)
def test_other_names_are_refused_with_the_remedy(names: dict[int, str]) -> None:
    with pytest.raises(ModelUnavailableError, match="set id2label"):
        order(names)
