"""Warnings about texts: due where the model was not made for the text, and never for English headlines."""

import pytest

from market_inference.cli.demo.headlines import HEADLINES
from models.sentiment.model import SentimentModel
from models.sentiment.text_warnings import examine
from models.warning import WarningCode
from tests.models.sentiment.test_language import CORPORATE, ROWS


def codes(text: str, windows: int = 1, *, english: bool = True) -> list[str]:
    return [warning.code for warning in examine(text, 20, windows, english=english)]


def test_english_headlines_and_sentences_get_no_warning() -> None:
    texts = [text for _, text in HEADLINES] + CORPORATE
    texts += [row["text"] for row in ROWS if row["language"] == "en"]
    assert [text for text in texts if codes(text)] == []


def test_a_german_headline_is_named_with_its_odds() -> None:
    (warning,) = examine("Die Aktie bricht nach der Gewinnwarnung um 20 Prozent ein", 20, 1, english=True)
    assert warning.code == WarningCode.TEXT_NOT_ENGLISH
    assert "German" in warning.message
    assert dict(warning.evidence)["log_odds"][0] < -5


def test_a_chinese_headline_is_named_by_its_script() -> None:
    (warning,) = examine("公司股价因业绩预警大跌", 20, 1, english=True)
    assert warning.code == WarningCode.TEXT_NOT_ENGLISH
    assert "outside the Latin script (Cjk)" in warning.message
    assert dict(warning.evidence) == {"foreign_share": (1.0,)}


def test_a_model_of_another_language_gets_no_warning_about_the_language() -> None:
    assert codes("Die Aktie bricht nach der Gewinnwarnung ein", english=False) == []


@pytest.mark.parametrize("text", ["AAPL +3.2% 187.32", "12.5 13.4 15.2", "$SPY $TNX", "!!!", "Q3: 4.51 vs 4.39"])
def test_numbers_and_signs_without_words_are_named(text: str) -> None:
    (warning,) = examine(text, 20, 1, english=True)
    assert warning.code == WarningCode.TEXT_MOSTLY_NUMBERS
    assert set(dict(warning.evidence)) == {"letters", "digits"}


def test_a_text_of_several_windows_is_named_with_its_length(embedded: SentimentModel) -> None:
    text = "The company said that profit rose in the third quarter. " * 20
    (chunks,) = embedded.prepare([text])
    (warning,) = embedded.warnings(text, chunks)
    assert warning.code == WarningCode.TEXT_LONG
    assert dict(warning.evidence) == {"tokens": (sum(chunk.weight for chunk in chunks),), "windows": (len(chunks),)}
    (short,) = embedded.prepare([text[:300]])
    assert embedded.warnings(text[:300], short) == ()
