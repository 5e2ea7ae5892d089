"""The mapping of a model's outputs to negative, neutral and positive, by the names in the model's configuration."""

from collections.abc import Mapping

from models.model import ModelUnavailableError
from models.sentiment import LABELS

_NAMES = {
    "negative": {"negative", "neg", "bearish", "bear", "sell", "down"},
    "neutral": {"neutral", "neu", "hold", "none", "flat"},
    "positive": {"positive", "pos", "bullish", "bull", "buy", "up"},
}


def order(names: Mapping[int, str]) -> tuple[int, int, int]:
    """The outputs' indices in the order of LABELS, from `id2label` of a transformers configuration.

    Raises ModelUnavailableError unless the outputs are named with each of the three labels exactly once.
    """
    plain = {int(index): name.strip().lower() for index, name in names.items()}
    found = {label: [index for index, name in plain.items() if name in _NAMES[label]] for label in LABELS}
    if len(plain) != len(LABELS) or any(len(indices) != 1 for indices in found.values()):
        given = ", ".join(repr(plain[index]) for index in sorted(plain))
        raise ModelUnavailableError(
            f"the model's labels ({given}) cannot be matched to {', '.join(LABELS)}: "
            "set id2label in its config.json to these three names"
        )
    negative, neutral, positive = (found[label][0] for label in LABELS)
    return negative, neutral, positive
