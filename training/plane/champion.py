"""The champion's answers, through the gateway: the plane measures the model in service as callers meet the model.

Owns the calls. All answers come from one version; answers of several versions are an error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from training.plane.gate.statistics import Floats

_TEXTS_AT_ONCE = 100
_SECONDS = 60.0
LONGEST_CONTEXT = 2048


class ChampionAwayError(Exception):
    """The gateway does not answer, or answers with an error or with several versions."""


class Champion:
    """The models in service, behind a gateway. The methods call `alive` between calls, and raise ChampionAwayError."""

    def __init__(self, target: str, key: str, *, tls: bool) -> None:
        self._target = target
        self._key = key
        self._tls = tls

    def texts(self, model: str, texts: Sequence[str], alive: Callable[[], None]) -> tuple[str, Floats]:
        """Name and version, and probabilities [n, 3]. An unknown model name stands for the default model."""
        with self._client() as client:
            name = self._known(client, "sentiment", model)
            answers = []
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                alive()
                answers += _whole(client.sentiment(list(texts[start : start + _TEXTS_AT_ONCE]), model=name))
            found = np.array([[one.negative, one.neutral, one.positive] for one in answers])
        return _one_version(answers), found

    def bands(
        self,
        model: str,
        contexts: Sequence[Mapping[str, Floats]],
        horizon: int,
        levels: Sequence[float],
        alive: Callable[[], None],
    ) -> tuple[str, list[dict[str, Floats]]]:
        """Name and version, and for each mapping of symbol to closes the quantiles [levels] one horizon ahead."""
        found, every = [], []
        with self._client() as client:
            name = self._known(client, "forecast", model)
            for closes in contexts:
                alive()
                series = {symbol: values[-LONGEST_CONTEXT:] for symbol, values in closes.items()}
                asked: Any = series if all(series) else list(series.values())
                answers = _whole(client.predict(asked, horizon, quantiles=list(levels), model=name))
                found.append({symbol: one.quantiles[-1] for symbol, one in zip(series, answers, strict=True)})
                every += answers
        return _one_version(every), found

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from market_inference import Client, MarketInferenceError

        try:
            with Client(self._target, api_key=self._key or None, tls=self._tls or None, timeout=_SECONDS) as client:
                yield client
        except MarketInferenceError as error:
            raise ChampionAwayError(f"the gateway at {self._target}: {error}"[:500]) from error

    @staticmethod
    def _known(client: Any, engine: str, model: str) -> str:
        names = {one.name for one in client.models() if one.engine == engine}
        return model if model in names else ""


def _whole(answers: Any) -> list[Any]:
    """The answers by position, whether the items had symbols or not. Raises the error of an item that failed."""
    return [answers[place] for place in range(len(answers))]


def _one_version(answers: Sequence[Any]) -> str:
    found = {f"{one.model} {one.model_version}" for one in answers}
    if len(found) != 1:
        raise ChampionAwayError(f"the gateway answered with several versions: {', '.join(sorted(found))}")
    return found.pop()
