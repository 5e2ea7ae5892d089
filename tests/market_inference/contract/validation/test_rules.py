"""Rules of text and numbers that the contract may get: both checks are held against protovalidate."""

import math
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from protovalidate import CompilationError, Validator

from market_inference.contract.errors import InvalidRequestError
from market_inference.contract.generated import validate_pb2
from market_inference.contract.validation import explain, fast, rules
from tests.market_inference.contract.validation.scratch import conforms as fast_check
from tests.market_inference.contract.validation.scratch import of_values, with_field

VALIDATOR = Validator()
RULES = {
    "pattern": {"pattern": "^[A-Z]+$"},
    "pattern with classes": {"pattern": r"^\w[\d\s]?\S$"},
    "pattern of letters": {"pattern": r"^\pL+$"},
    "pattern without case": {"pattern": "(?i)^kelvin$"},
    "pattern over a line": {"pattern": "a.b"},
    "len": {"len": 2},
    "min_len": {"min_len": 2},
    "max_len": {"max_len": 3},
    "min_len and max_len": {"min_len": 1, "max_len": 2},
    "bytes": {"min_bytes": 2, "max_bytes": 4},
    "len_bytes": {"len_bytes": 2},
    "in": {"in": ["AB", "é", ""]},
    "not_in": {"not_in": ["AB", ""]},
    "const": {"const": "AB"},
    "prefix": {"prefix": "A"},
    "suffix": {"suffix": "B"},
    "contains": {"contains": "AB"},
    "not_contains": {"not_contains": "AB"},
    "email": {"email": True},
    "uuid": {"uuid": True},
    "tuuid": {"tuuid": True},
    "hostname": {"hostname": True},
    "ip": {"ip": True},
    "uri": {"uri": True},
    "ulid": {"ulid": True},
    "header name": {"well_known_regex": validate_pb2.KNOWN_REGEX_HTTP_HEADER_NAME},
    "cel": {"cel": "this.size() < 3"},
    "required": {"required": True},
    "required and max_len": {"required": True, "max_len": 2},
    "ignored when empty": {"min_len": 2, "ignore": validate_pb2.IGNORE_IF_ZERO_VALUE},
    "email ignored when empty": {"email": True, "ignore": validate_pb2.IGNORE_IF_ZERO_VALUE},
    "always ignored": {"min_len": 2, "required": True, "ignore": validate_pb2.IGNORE_ALWAYS},
    "example": {"max_len": 2, "example": ["AB"]},
    "pattern and lengths": {"pattern": "^[A-Z]*$", "min_len": 1, "max_len": 2, "not_in": ["ZZ"]},
}
FORMS = ("single", "optional", "repeated", "nested")
TYPES = {(name, form): with_field(own, form) for name, own in RULES.items() for form in FORMS
         if not (form == "repeated" and own.get("required"))}  # fmt: skip
EDGES = ["", "A", "AB", "ABC", "ab", "é", "éé", "AB\n", "\n", " ", "\u00a0", "\x0b", "\u0663", "a\nb", "KELVIN",
         "\u212aelvin", "a@b.c", "a@b.c\n", "0" * 32, "00000000-0000-0000-0000-00000000000A", "::1", "1.2.3.4", "a.b", "http://a/b",
         "01ARZ3NDEKTSV4RRFFQ69G5FAV", "x-a", "ZZ", "😀😀", "\x00", "A1é", "a S"]  # fmt: skip
texts = st.one_of(st.sampled_from(EDGES), st.text(max_size=5))


NUMBERS = {
    "bounds": ("uint32", {"gte": 1, "lte": 3}),
    "open bounds": ("double", {"gt": 0, "lt": 2}),
    "an excluded range": ("uint32", {"lt": 1, "gt": 2}),
    "equal bounds": ("uint32", {"gte": 2, "lte": 2}),
    "mixed bounds": ("double", {"gt": 0, "lte": 2}),
    "in": ("uint32", {"in": [1, 2]}),
    "const": ("double", {"const": 2.0}),
    "finite": ("double", {"finite": True}),
    "unique": ("double", {"unique": True}),
    "unique whole numbers": ("uint32", {"unique": True, "gte": 1}),
    "not zero": ("double", {"required": True}),
    "ignored when zero": ("double", {"gt": 1, "ignore": validate_pb2.IGNORE_IF_ZERO_VALUE}),
}
NUMBER_TYPES = {
    (name, form): (kind, with_field(own, form, kind=kind))
    for name, (kind, own) in NUMBERS.items()
    for form in FORMS
    if not (form == "repeated" and own.get("required")) and not (form != "repeated" and own.get("unique"))
}
NUMBER_EDGES = {
    "uint32": st.integers(0, 4),
    "double": st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, -1.0, math.inf, -math.inf, math.nan, 5e-324]),
}


def check_like_protovalidate(made: type[Message], message: Message, *, exact: bool = True) -> None:
    """The fast check accepts no message with violations and, with `exact`, refuses no message without violations."""
    broken = VALIDATOR.collect_violations(message)
    conforms = fast_check(made, message.SerializeToString())
    assert conforms is not bool(broken) if exact else not (conforms and broken)
    if not broken:
        assert explain.check(message) == []
        return
    with pytest.raises(InvalidRequestError) as caught:
        explain.check(message)
    assert [violation.reason for violation in caught.value.violations] == [one.proto.rule_id for one in broken]
    assert all(violation.description and violation.field for violation in caught.value.violations)


def lists(form: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    if form in {"single", "optional"}:
        return st.lists(st.one_of(st.none(), value) if form == "optional" else value, min_size=1, max_size=1)
    return st.lists(value, max_size=3)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=60)
@given(data=st.data())
def test_both_checks_of_text_agree_with_protovalidate(name, data):
    form = data.draw(st.sampled_from([form for form in FORMS if (name, form) in TYPES]))
    made = TYPES[name, form]
    check_like_protovalidate(made, of_values(made, form, *data.draw(lists(form, texts))))


@pytest.mark.parametrize("name", NUMBERS)
@settings(max_examples=60)
@given(data=st.data())
def test_both_checks_of_numbers_agree_with_protovalidate(name, data):
    form = data.draw(st.sampled_from([form for form in FORMS if (name, form) in NUMBER_TYPES]))
    kind, made = NUMBER_TYPES[name, form]
    values = data.draw(lists(form, NUMBER_EDGES[kind]))
    # protovalidate takes -0.0 for the zero of an unset field in a list only.
    exact = not any(str(value) == "-0.0" for value in values)
    check_like_protovalidate(made, of_values(made, form, *values), exact=exact)


@pytest.mark.parametrize(("name", "form"), TYPES, ids=map(" ".join, TYPES))
def test_no_rule_of_a_text_keeps_its_type_from_the_fast_check(name, form):
    assert fast.uncovered_rule(TYPES[name, form]) == ""


@pytest.mark.parametrize(
    ("own", "text", "words"),
    [
        ({"pattern": "^[A-Z]+$"}, "eur/usd", "must match ^[A-Z]+$ (got 'eur/usd')"),
        ({"len": 3}, "EU", "must be 3 characters long (got 2)"),
        ({"min_len": 1}, "", "must not be empty"),
        ({"min_len": 2}, "E", "too short (min 2 characters, got 1)"),
        ({"max_len": 2}, "EUR", "too long (max 2 characters, got 3)"),
        ({"in": ["EUR", "USD"]}, "DM", "must be in list [EUR, USD] (got 'DM')"),
        ({"not_in": ["DM"]}, "DM", "must not be in list [DM] (got 'DM')"),
        ({"prefix": "X:"}, "EUR", "does not have prefix `X:` (got 'EUR')"),
        ({"email": True}, "EUR", "must be a valid email address (got 'EUR')"),
        ({"email": True}, "", "value is empty, which is not a valid email address"),
        ({"cel": "this.size() < 3"}, "EUR", "breaks a rule in CEL (got 'EUR')"),
        ({"required": True}, "", "must be set"),
    ],
)
def test_a_violation_names_the_rule_and_the_value(own, text, words):
    with pytest.raises(InvalidRequestError) as caught:
        explain.check(of_values(with_field(own), "single", text))
    assert caught.value.message == f"value: {words}"


def test_pattern_and_value_are_cut_in_a_message():
    with pytest.raises(InvalidRequestError) as caught:
        explain.check(of_values(with_field({"pattern": "^(" + "AB|" * 500 + ")$"}), "single", "x" * 5000))
    assert len(caught.value.message) < 4 * rules.SHOWN_CHARACTERS
    assert caught.value.message.startswith("value: must match ^(AB|AB|")


def test_pattern_message_replaces_the_pattern():
    kind = with_field({"pattern": r"\S"}, pattern_message="must not be blank")
    with pytest.raises(InvalidRequestError, match=r"^value: must not be blank$"):
        explain.check(of_values(kind, "single", " "))


def test_a_pattern_that_protovalidate_cannot_compile_is_an_error():
    with pytest.raises(CompilationError):
        fast.uncovered_rule(with_field({"pattern": "(?=a)"}))
