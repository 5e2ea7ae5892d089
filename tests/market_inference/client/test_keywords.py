"""A misspelt keyword of a client's method: the TypeError names the public method and the nearest keyword."""

import inspect
from typing import Any

import pytest

from market_inference import AsyncClient, Client

METHODS = ("predict", "sentiment", "indicators", "analyze", "status", "models", "watch")
STREAMED = (("predict", "modle", "model"), ("sentiment", "abot", "about"), ("indicators", "lst", "last"))
NEEDED = {
    "predict": ([1.0, 2.0], 3),
    "sentiment": ("up",),
    "indicators": ([1.0, 2.0], "RSI"),
    "watch": ("A", [1.0]),
}


async def call(client: Any, name: str, **keywords: Any) -> None:
    found = getattr(client, name)(*NEEDED.get(name, ()), **keywords)
    if inspect.isawaitable(found):
        await found


def test_every_public_method_is_here() -> None:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert public == {*METHODS, "stream", "close"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", METHODS)
async def test_the_error_names_the_method_and_lists_the_keywords(service: Any, kind: type, name: str) -> None:
    with pytest.raises(TypeError) as raised:
        await call(kind(service.target), name, qqqq=1)
    start = f"{kind.__name__}.{name}() got an unexpected keyword argument 'qqqq'; there are: "
    assert str(raised.value).startswith(start)
    listed = str(raised.value).removeprefix(start).split(", ")
    assert ("timeout" in listed) == (name != "watch")
    assert not {"self", "options"} & {*listed}
    assert not service.calls


async def test_methods_of_streams_name_the_nearest_keyword(service: Any) -> None:
    with Client(service.target) as client, client.stream() as stream:
        for name, wrong, right in STREAMED:
            with pytest.raises(TypeError, match=rf"^Stream\.{name}\(\) .*; did you mean '{right}'\?$"):
                await call(stream, name, **{wrong: 1})
    async with AsyncClient(service.target) as other, other.stream() as streamed:
        for name, wrong, right in STREAMED:
            with pytest.raises(TypeError, match=rf"^AsyncStream\.{name}\(\) .*; did you mean '{right}'\?$"):
                await call(streamed, name, **{wrong: 1})


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("predict", "modle", "model"),
        ("predict", "Horizon", "horizon"),
        ("predict", "covariate", "covariates"),
        ("sentiment", "time_out", "timeout"),
        ("indicators", "lasts", "last"),
        ("analyze", "text", "texts"),
        ("status", "requestid", "request_id"),
        ("models", "Timeout", "timeout"),
        ("watch", "indicator", "indicators"),
    ],
)
async def test_the_error_names_the_nearest_keyword(service: Any, kind: type, name: str, wrong: str, right: str) -> None:
    with pytest.raises(TypeError) as raised:
        await call(kind(service.target), name, **{wrong: 1})
    said = f"{kind.__name__}.{name}() got an unexpected keyword argument {wrong!r}; did you mean {right!r}?"
    assert str(raised.value) == said
