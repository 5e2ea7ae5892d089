"""One company in a text: mentions, the masked text, and the clauses on the company."""

import time

import pytest

from models.sentiment.company import MASK, clauses, masked, mentions
from models.sentiment.minilm import tokenizer

TEXT = "Apple shares plunge after a profit warning, while Microsoft profit rises sharply"


@pytest.mark.parametrize(
    ("text", "company", "expected"),
    [
        ("Apple beats Samsung; Apple's margin rose", "Apple", "[MASK] beats Samsung; [MASK]'s margin rose"),
        ("$AAPL up, AAPLX down", "AAPL", "[MASK] up, AAPLX down"),
        ("$AAPL up", "$AAPL", "[MASK] up"),
        ("Apple hires", "Apple Inc.", "[MASK] hires"),
        ("Apple Inc. hires", "Apple Inc.", "[MASK] hires"),
        ("Johnson &  Johnson sued", "Johnson & Johnson", "[MASK] sued"),
        ("Analysts target higher sales at Target", "Target", "Analysts target higher sales at [MASK]"),
        ("nvidia rallies", "Nvidia", "[MASK] rallies"),
        ("Mahindra & Mahindra, M&M", "M&M", "Mahindra & Mahindra, [MASK]"),
    ],
)
def test_mentions_are_masked(text: str, company: str, expected: str) -> None:
    assert mentions(text, company)
    assert masked(text, company) == expected


@pytest.mark.parametrize("company", ["Nokia", "App", "pple", "Apple Farm", "", " ", "$"])
def test_a_company_that_the_text_does_not_name_is_not_mentioned(company: str) -> None:
    assert not mentions(TEXT, company)
    assert masked(TEXT, company) == TEXT


def test_the_mask_is_one_token_of_the_embedded_model() -> None:
    words = tokenizer()
    words.no_padding()
    assert words.encode(MASK, add_special_tokens=False).ids == [words.token_to_id(MASK)]


@pytest.mark.parametrize(
    ("company", "part"),
    [("Apple", "Apple shares plunge"), ("microsoft ", "Microsoft profit rises sharply"), ("Nokia", TEXT)],
)
def test_the_clauses_with_the_company_are_kept(company: str, part: str) -> None:
    assert clauses(TEXT, company) == part


@pytest.mark.parametrize("text", ["Apple" + " " * 9_990, "Apple " * 1_600, "Apple" + " -" * 4_900, "x" * 10_000])
def test_long_texts_of_few_characters_take_linear_time(text: str) -> None:
    def seconds() -> float:
        began = time.thread_time()
        clauses(text, "Apple")
        masked(text, "Apple")
        return time.thread_time() - began

    # A full pass of the garbage collector may take longer, and does not come three times.
    assert min(seconds() for _ in range(3)) < 0.1


def test_a_clause_of_the_name_alone_says_nothing_and_the_whole_text_is_kept() -> None:
    assert clauses("Nokia: profit falls", "Nokia") == "Nokia: profit falls"


def test_several_clauses_with_the_company_are_joined() -> None:
    assert clauses("Tata gains 2%; Infosys falls; Tata Steel leads", "Tata") == "Tata gains 2%. Tata Steel leads"


def test_a_name_is_found_in_any_case() -> None:
    assert mentions(TEXT, " APPLE")
