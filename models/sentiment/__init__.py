"""Financial sentiment of texts: negative, neutral, positive.

>>> model = load()
>>> [chunks] = model.prepare(["Operating profit rose to EUR 21.4 mn from EUR 15.9 mn a year earlier."])
>>> model.pool(chunks, model.run(chunks))  # float32 [3], in the order of LABELS

Importing this package is cheap: load() imports torch, and transformers only for transformers models.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.sentiment.chunk import Chunk, Probabilities
    from models.sentiment.model import SentimentModel

LABELS = ("negative", "neutral", "positive")
EMBEDDED = "minilm"

__all__ = ["EMBEDDED", "LABELS", "Chunk", "Probabilities", "SentimentModel", "load", "score"]


def load(name_or_source: str = EMBEDDED, *, device: str = "cpu", dtype: str = "auto") -> "SentimentModel":
    """Load a model onto a device: "minilm", a local folder, or a hub id of a transformers sequence classifier.

    dtype: "float32", "bfloat16" or "auto" (bfloat16 where the hardware multiplies bfloat16 matrices). Raises
    models.model.ModelUnavailableError when a package, file or device is missing, a file's digest differs, or the
    model's labels cannot be matched to LABELS.
    """
    from models.sentiment.source import load as load_from

    return load_from(name_or_source, device, dtype)


def score(probabilities: "Probabilities") -> float:
    """One number in [-1, 1] for one text's probabilities [3]: positive minus negative."""
    return float(probabilities[2] - probabilities[0])


def __getattr__(name: str) -> object:
    """Import the public classes at first use, so that importing this package stays cheap."""
    if name in ("Chunk", "Probabilities"):
        from models.sentiment import chunk

        return getattr(chunk, name)
    if name == "SentimentModel":
        from models.sentiment.model import SentimentModel

        return SentimentModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
