"""Recipes: YAML in, a checked recipe out, or the field that is wrong."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipes import recipe as recipes
from training.recipes.recipe import Calibration, RecipeError, Sentiment, fixed, parse
from training.sentiment import fit


def test_a_recipe_has_the_defaults_of_the_command_line() -> None:
    found = parse(b"kind: sentiment\n")
    assert isinstance(found, Sentiment)
    for name, value in vars(fit.Recipe()).items():
        assert getattr(found, name) == value, name


def test_yaml_and_json_are_the_same_recipe() -> None:
    yaml = parse(b"# bars of the desk\nkind: calibration\nhorizon: 7\nlevels: [0.1, 0.5, 0.9]\n")
    json = parse(b'{"levels": [0.1, 0.5, 0.9], "horizon": 7, "kind": "calibration"}')
    assert isinstance(yaml, Calibration)
    assert fixed(yaml) == fixed(json)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"kind: sentiment\nepoch: 3\n", ("epoch",)),
        (b"kind: sentiment\nepochs: 2.5\n", ("epochs",)),
        (b"kind: sentiment\nrank: -1\n", ("rank",)),
        (b"kind: sentiment\nsplit: {validate: 0.1}\n", ("split", "validate")),
        (b"kind: calibration\nlevels: [0.1, 1.5]\n", ("levels", 1)),
        (b"kind: sentiment\nversion: ../up\n", ("version",)),
    ],
)
def test_the_wrong_field_is_named(text: bytes, place: tuple[object, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert [mistake["loc"] for mistake in caught.value.mistakes] == [place]


def test_bombs_are_refused_at_once() -> None:
    levels = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.thread_time()  # of this thread alone: other processes may keep the machine busy
    # Thousands of keys, and a number in base 60, whose digits Python multiplies one by one.
    many = "{" + ", ".join(f"{number:x}: 1" for number in range(7_000)) + "}"
    for bomb in (
        "\n".join(levels),
        many,
        "seed: 1" + ":59" * 20_000,
        "[" * 60_000,
        "{a: " * 10_000,
        "a: &x [*x]",
        "<<: &a {b: 1}",
    ):
        with pytest.raises(RecipeError):
            parse(bomb.encode())
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("value", ["1:30", "1:30:00.5", ":".join(["1"] * 200)])
def test_a_number_to_the_base_60_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match="is a number to the base 60"):
        parse(f"kind: sentiment\nmax_usd: {value}".encode())
    assert parse(b'kind: sentiment\nname: "1:30"').name == "1:30"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_recipe_or_a_refusal(text: bytes) -> None:
    try:
        assert parse(text)
    except RecipeError as error:
        assert error.mistakes


def test_every_kind_has_its_data() -> None:
    assert set(recipes.DATASETS) == {"sentiment", "classifier", "calibration", "chronos2"}
