"""The errors of single items, in the terms of the caller's data: symbol, position, rows without a value."""

import re
from collections.abc import Sequence
from typing import Any

from market_inference.client.inputs.items import Source
from market_inference.errors import MarketInferenceError

_TOO_LONG = re.compile(r"too long \(max (\d+), ")
_POSITION = re.compile(r"\b(series|texts|panels|forecasts|sentiments)\[(\d+)\]")


def request_error(error: MarketInferenceError, items: Sequence[Any], before: int) -> MarketInferenceError:
    """The error of a whole request in the caller's terms: the service refuses a request without a good item as one."""
    found = _POSITION.search(error.message)
    if found is None or int(found[2]) >= len(items):
        return error
    return item_error(error, items[int(found[2])].source, before)


def item_error(error: MarketInferenceError, source: Source, before: int) -> MarketInferenceError:
    """The error in the caller's terms; `before` items went with earlier requests."""

    def shifted(text: str) -> str:
        return _POSITION.sub(lambda found: f"{found[1]}[{int(found[2]) + before}]", text)

    error.violations = [(shifted(field), text) for field, text in error.violations]
    error.message = f"{source.symbol}: {shifted(error.message)}" if source.symbol else shifted(error.message)
    error.args = (error.message,)
    for field, text in error.violations:
        if (most := _TOO_LONG.match(text)) is not None and field.endswith((".values", ".close")):
            error.extend(f"send the newest {most[1]}, such as [-{most[1]}:]")
            break
    if source.missing and "texts[" in error.message:
        error.extend(f"got {source.missing[0]}: leave missing texts out")
    elif source.missing:
        error.extend(
            f"{', '.join(source.missing)} without a value: fill such rows (ffill()) or leave them out (dropna())"
        )
    return error
