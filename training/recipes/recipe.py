"""Recipes: the settings of a training run, one model for each `kind`.

Owns the fields, their limits and the reading of YAML. No torch in here: the plane checks recipes, pods run recipes.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MOST_BYTES: Final = 64 * 1024
_DEEPEST = 20
_LONGEST = 1000
_MOST_NODES = 1000
Levels: TypeAlias = tuple[Annotated[float, Field(gt=0, lt=1)], ...]
_LEVELS_WORDS = "quantiles; the gate needs 0.1 and 0.9 among these"


class RecipeError(ValueError):
    """The text is no recipe. `mistakes` are pydantic's, or one of our own with `loc` and `msg`."""

    def __init__(self, mistakes: list[Any]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, m['loc']))}: {m['msg']}" for m in mistakes[:5]))
        self.mistakes = mistakes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Split(_Strict):
    """How rows are divided: the newest rows are held back for the gate, the newest of the rest validate.

    Rows without times are drawn by the seed.
    """

    gate: float = Field(0.15, ge=0, le=0.5, description="share held back for the gate; a model without is undecided")
    validation: float = Field(0.2, gt=0, le=0.5, description="share of the rest, which chooses epoch and temperature")
    embargo_days: float = Field(0.0, ge=0, le=3650, description="days left out before each later part")


class Machine(_Strict):
    """The machine that a job runs on. The process launcher runs every job on the plane's own computer."""

    gpus: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        (),
        max_length=20,
        description="acceptable types as the platform names them, the preferred first; any by default",
    )
    count: int = Field(1, ge=1, le=8, description="GPUs of the machine")
    memory_gb: int = Field(0, ge=0, le=1024, description="memory of a GPU at least")
    max_usd_per_hour: float | None = Field(None, gt=0, le=1000, description="price of the machine at most")


class _Envelope(_Strict):
    """The fields of every recipe."""

    name: str = Field(
        "", max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="shown in lists; by default the kind"
    )
    seed: int = Field(1, ge=0, lt=2**31)
    threads: int = Field(1, ge=1, le=64, description="CPU threads")
    max_seconds: float = Field(3600.0, ge=1, le=30 * 86400, description="time of all attempts together")
    max_attempts: int = Field(2, ge=1, le=10, description="tries when the recipe itself fails")
    machine: Machine = Machine()
    max_usd: float | None = Field(None, gt=0, le=100_000, description="cost of all attempts together")
    checkpoint_seconds: float = Field(300.0, ge=0, le=86400, description="between two checkpoints; 0 after each step")


class Sentiment(_Envelope):
    """Low-rank adapters and a head on the embedded sentiment encoder, from texts with labels 0, 1 and 2."""

    kind: Literal["sentiment"]
    version: str = Field("1", min_length=1, max_length=100, pattern=r"^[\w.+-]+$")
    epochs: int = Field(3, ge=1, le=100)
    steps: int = Field(0, ge=0, le=10_000_000, description="end after so many steps; 0 for all epochs")
    batch: int = Field(32, ge=1, le=1024)
    rank: int = Field(16, ge=1, le=256)
    scale: float = Field(2.0, gt=0, le=64)
    adapter_rate: float = Field(5e-4, gt=0, le=1)
    head_rate: float = Field(1e-3, gt=0, le=1)
    decay: float = Field(0.01, ge=0, le=1)
    warm_up: float = Field(0.06, ge=0, le=1)
    clip: float = Field(1.0, gt=0, le=1000)
    dropout: float = Field(0.1, ge=0, lt=1)
    smoothing: float = Field(0.0, ge=0, lt=1)
    averaging: float = Field(0.995, ge=0, lt=1)
    length: int = Field(64, ge=8, le=256)
    phrases: int = Field(0, ge=0, le=100_000, description="template sentences to add")
    split: Split = Split()


class Calibration(_Envelope):
    """Per-symbol scale of the forecaster's intervals by walk-forward quantile loss, from bars."""

    kind: Literal["calibration"]
    version: str = Field("1", min_length=1, max_length=100, pattern=r"^[\w.+-]+$")
    horizon: int = Field(5, ge=1, le=60, description="bars ahead")
    levels: Levels = Field((0.05, 0.1, 0.5, 0.9, 0.95), min_length=1, description=_LEVELS_WORDS)
    folds: int = Field(5, ge=2, le=50, description="rolling origins, the newest validate")
    fewest: int = Field(120, ge=60, le=10_000, description="bars that a symbol needs for parameters of its own")


class _Tuned(_Envelope):
    """The fields of recipes with a base model."""

    version: str = Field("1", min_length=1, max_length=100, pattern=r"^[\w.+-]+$")
    base: str = Field(min_length=1, max_length=500, description="a folder that the plane offers, or a hub id")
    revision: str = Field("", max_length=100, description="the hub's commit")
    epochs: int = Field(3, ge=1, le=100)
    steps: int = Field(0, ge=0, le=10_000_000, description="end after so many steps; 0 for all epochs")
    batch: int = Field(16, ge=1, le=1024)
    rank: int = Field(8, ge=1, le=256)
    scale: float = Field(2.0, gt=0, le=64, description="alpha divided by the rank")
    warm_up: float = Field(0.06, ge=0, le=1)
    clip: float = Field(1.0, gt=0, le=1000)
    decay: float = Field(0.01, ge=0, le=1)
    averaging: float = Field(0.99, ge=0, lt=1)
    split: Split = Split()


class Classifier(_Tuned):
    """Low-rank adapters on any Hugging Face sequence classifier, merged into a transformers folder; from texts."""

    kind: Literal["classifier"]
    labels: tuple[Annotated[str, Field(min_length=1, max_length=50)], ...] = Field(
        ("negative", "neutral", "positive"), min_length=2, max_length=100, description="the names of labels 0, 1, ..."
    )
    rate: float = Field(2e-4, gt=0, le=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    length: int = Field(128, ge=8, le=512, description="tokens of a text")


class Chronos2(_Tuned):
    """A Chronos-2 forecaster on closes, whole or by low-rank adapters, merged; from bars."""

    kind: Literal["chronos2"]
    mode: Literal["lora", "full"] = "lora"
    horizon: int = Field(16, ge=1, le=365, description="bars ahead")
    context: int = Field(512, ge=32, le=8192, description="bars before")
    levels: Levels = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1, description=f"{_LEVELS_WORDS}, of the base's own"
    )
    rate: float = Field(1e-5, gt=0, le=1)


AnyRecipe: TypeAlias = Sentiment | Classifier | Calibration | Chronos2
_RECIPES: TypeAdapter[AnyRecipe] = TypeAdapter(Annotated[AnyRecipe, Field(discriminator="kind")])
DATASETS: Final = {"sentiment": "texts", "classifier": "texts", "calibration": "bars", "chronos2": "bars"}

SENTIMENT_LABELS: Final = 3


def unfit(recipe: Mapping[str, Any], labels: Iterable[str]) -> str:
    """Why a dataset with these labels is none for the recipe, "" where it is one. Bars have no labels."""
    kind = recipe["kind"]
    most = SENTIMENT_LABELS if kind == "sentiment" else len(recipe.get("labels", ()))
    highest = max(map(int, labels), default=-1)
    return f"{kind} takes the labels 0 to {most - 1}, and the dataset has {highest}" if highest >= most else ""


def parse(text: bytes) -> AnyRecipe:
    """The recipe of a YAML or JSON document. Raises RecipeError."""
    if len(text) > MOST_BYTES:
        raise RecipeError(
            [{"loc": (), "msg": f"at most {MOST_BYTES} bytes, got {len(text)}", "ctx": {"le": MOST_BYTES}}]
        )
    try:
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, ArithmeticError) as error:
        raise RecipeError([{"loc": (), "msg": f"not YAML: {_first_line(error)}"}]) from None
    return of(found)


def of(found: Any) -> AnyRecipe:
    """The recipe of a document that is parsed. Raises RecipeError."""
    if not isinstance(found, dict):
        raise RecipeError([{"loc": (), "msg": "must be a mapping with `kind`"}])
    try:
        return _RECIPES.validate_python(found)
    except ValidationError as error:
        # The first part of a place is the kind that pydantic has chosen.
        mistakes = [
            {**m, "loc": m["loc"][1:] if m["loc"][:1] == (found.get("kind"),) else m["loc"]}
            for m in error.errors(include_url=False, include_input=False)
        ]
        raise RecipeError(mistakes) from None


def fixed(recipe: AnyRecipe) -> str:
    """The recipe as JSON in one form, so that equal recipes have equal digests."""
    return json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


_NUMBERS: Final = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # the package has no types
    """PyYAML's safe loader without repeated keys, tags, anchors and aliases. Aliases make a small text huge."""

    _depth = 0
    _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("anchors and aliases are not taken")
        if getattr(event, "tag", None) is not None:
            raise ValueError("tags are not taken")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST:
            raise ValueError(f"a value of more than {_LONGEST} characters")
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES} keys and values")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        try:
            node = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        if node.tag in _NUMBERS and ":" in node.value:
            raise ValueError(f"{node.value[:40]!r} is a number to the base 60 in YAML; write a plain number, or quotes")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in keys.items() if count > 1]:
            raise ValueError(f"the key {twice[0][:40]!r} stands twice")
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def _first_line(error: Exception) -> str:
    place = getattr(error, "problem_mark", None)
    where = f" (line {place.line + 1})" if place else ""
    problem = getattr(error, "problem", None) or (str(error).splitlines() or ["unreadable"])[0]
    return f"{problem}{where}"
