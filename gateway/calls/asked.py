"""What a request asks for, for the log line of the call: model, items, units.

Owns the reading of models and items. Read before the message is freed; texts and series stay out.
"""

from typing import Any, NamedTuple

from market_inference.contract.methods import Method

# Names of models are chosen by clients, and a request with a longer name is refused.
_MOST_CHARACTERS = 64


class Asked(NamedTuple):
    """`model` as the client named it, empty for the default. `units`: contract/units.py."""

    model: str = ""
    items: int = 0
    units: int = 0


NOTHING = Asked()


def of(method: Method, message: Any) -> Asked:
    """What a request asks for; `message` is read through the method's twin."""
    model, count = "", 0
    for part, items in method.lists:
        holder = getattr(message, part) if part else message
        count += len(getattr(holder, items))
        if name := getattr(holder, "model", ""):
            model = f"{model}, {name[:_MOST_CHARACTERS]}" if model else name[:_MOST_CHARACTERS]
    return Asked(model, count, method.units(message))
