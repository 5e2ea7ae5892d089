"""Recognition of English: headlines in other languages are found, English headlines never."""

import csv
import math
from pathlib import Path

import pytest

from market_inference.cli.demo.headlines import HEADLINES
from models.sentiment.language import foreign, words
from training.sentiment.phrases import phrases

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "sentiment"
ROWS = list(csv.DictReader((FOLDER / "languages.csv").read_text(encoding="utf-8").splitlines()))
CORPORATE = [row["text"] for row in csv.DictReader((FOLDER / "corporate.csv").read_text(encoding="utf-8").splitlines())]


def test_no_english_headline_looks_foreign() -> None:
    texts = [row["text"] for row in ROWS if row["language"] == "en"] + CORPORATE + [text for _, text in HEADLINES]
    assert [text for text in texts if foreign(text)] == []


def test_no_training_sentence_looks_foreign() -> None:
    assert [row.text for row in phrases(500, 1) if foreign(row.text)] == []


def test_nine_of_ten_foreign_headlines_are_found() -> None:
    texts = [row["text"] for row in ROWS if row["language"] != "en"]
    assert sum(foreign(text) is not None for text in texts) / len(texts) >= 0.93


def test_every_headline_in_another_script_is_found_with_the_script() -> None:
    found = foreign("Газпром снизил дивиденды")
    assert found is not None
    assert (found.foreign_share, found.nearest) == (1.0, "Cyrillic")
    assert math.isnan(found.log_odds)
    scripts = {"zh", "ja", "ko", "ru", "uk", "el", "ar", "he", "hi", "th"}
    assert all(foreign(row["text"]) for row in ROWS if row["language"] in scripts)


def test_the_nearest_language_is_named() -> None:
    found = foreign("Der Umsatz stieg im dritten Quartal um 12 Prozent")
    assert found is not None
    assert found.nearest == "de"
    assert found.log_odds < -5


@pytest.mark.parametrize(
    "text",
    ["", "🚀🚀🚀", "$SPY $TNX $ULTA", "AAPL", "Société Générale", "https://example.com/über-uns", "𝐀pple", "4 Q 3.2"],
)
def test_names_tickers_and_signs_alone_are_not_foreign(text: str) -> None:
    assert foreign(text) is None


def test_words_are_letters_without_tickers_mentions_and_addresses() -> None:
    assert words("$TSLA +5% @elon #EV Größe 3rd https://t.co/x www.a.b/c") == ["Größe", "rd"]
