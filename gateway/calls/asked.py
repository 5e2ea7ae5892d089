"""What a request asks for, for the log line of the call: model, items, units.

Owns the places of model and items in the messages. Read before the message is freed; texts and series stay out.
"""

from typing import Any, NamedTuple

from market_inference.contract.methods import Method

# Names of models are chosen by clients, and a request with a longer name is refused.
_MOST_CHARACTERS = 64
_LISTS = {"Predict": "series", "AnalyzeSentiment": "texts", "ComputeIndicators": "panels"}
_PARTS = (("predict", "series"), ("sentiment", "texts"), ("indicators", "panels"))


class Asked(NamedTuple):
    """`model` as the client named it, empty for the default. `units`: contract/units.py."""

    model: str = ""
    items: int = 0
    units: int = 0


NOTHING = Asked()


def of(method: Method, message: Any) -> Asked:
    """What a request asks for; `message` is read through the method's twin."""
    name = _LISTS.get(method.name)
    if name is not None:
        model = getattr(message, "model", "")[:_MOST_CHARACTERS]
        return Asked(model, len(getattr(message, name)), method.units(message))
    if method.name != "Analyze":
        return Asked(units=method.units(message))
    parts = [(getattr(message, part), items) for part, items in _PARTS]
    models = (getattr(part, "model", "")[:_MOST_CHARACTERS] for part, _ in parts)
    return Asked(
        ", ".join(filter(None, models)),
        sum(len(getattr(part, items)) for part, items in parts),
        method.units(message),
    )
