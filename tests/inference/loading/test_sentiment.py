"""The loader of sentiment models: the default model, loaded ahead, is handed out once."""

import sys
from typing import Any

import pytest

from inference.config import Config
from inference.loading import sentiment
from inference.loading.sentiment import MOST_THREADS, SentimentLoader
from models.model import ModelUnavailableError
from runtime import cores
from runtime.foreign import EscapedError


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """What was loaded, in order; models named "missing" and "ending" cannot be."""
    done: list[tuple[str, str, int]] = []

    def load(name_or_source: str, *, device: str, threads: int) -> object:
        done.append((name_or_source, device, threads))
        if name_or_source == "missing":
            raise ModelUnavailableError("the package of this model is not installed")
        if name_or_source == "ending":
            sys.exit("no GPU here")
        return object()

    monkeypatch.setattr(sentiment.sentiment, "load", load)
    return done


def loader(**settings: Any) -> SentimentLoader:
    return SentimentLoader(Config(_env_file=None, **settings), "cpu")


def test_the_default_is_loaded_ahead_once(loads: list[tuple[str, str, int]]) -> None:
    load = loader(sentiment_models="first=/folder,second", text_threads=3)
    load.begin()
    ahead = load("first", "/folder")
    assert loads == [("/folder", "cpu", 3)]
    assert load("first", "/folder") is not ahead
    assert [name for name, _, _ in loads] == ["/folder", "/folder"]


def test_other_models_do_not_take_what_was_loaded_ahead(loads: list[tuple[str, str, int]]) -> None:
    load = loader(sentiment_models="first,second")
    load.begin()
    load("second", None)
    load("first", "/another/folder")
    load("first", None)
    assert sorted(name for name, _, _ in loads) == ["/another/folder", "first", "second"]


def test_a_model_of_the_registry_is_always_loaded_anew(loads: list[tuple[str, str, int]]) -> None:
    load = loader(sentiment_models="first")
    load.begin()
    load.fresh("first", None)
    load("first", None)
    assert len(loads) == 2


def test_a_failure_reaches_the_call_that_asks_for_the_model(loads: list[tuple[str, str, int]]) -> None:
    load = loader(sentiment_models="missing")
    load.begin()
    with pytest.raises(ModelUnavailableError, match="not installed"):
        load("missing", None)
    with pytest.raises(ModelUnavailableError, match="not installed"):
        load("missing", None)
    assert len(loads) == 2


def test_a_failure_that_is_no_exception_reaches_the_call_too(loads: list[tuple[str, str, int]]) -> None:
    load = loader(sentiment_models="ending")
    load.begin()
    with pytest.raises(EscapedError, match="SystemExit"):
        load("ending", None)


def test_without_models_nothing_is_loaded(loads: list[tuple[str, str, int]]) -> None:
    loader(sentiment_models="").begin()
    assert loads == []


def test_nothing_is_loaded_ahead_on_a_gpu(loads: list[tuple[str, str, int]]) -> None:
    load = SentimentLoader(Config(_env_file=None), "cuda:0")
    load.begin()
    assert loads == []
    load("minilm", None)
    assert [device for _, device, _ in loads] == ["cuda:0"]


def test_texts_get_a_thread_for_each_core(loads: list[tuple[str, str, int]]) -> None:
    loader()("minilm", None)
    loader(text_threads=1)("minilm", None)
    assert [threads for _, _, threads in loads] == [min(cores.available(), MOST_THREADS), 1]
