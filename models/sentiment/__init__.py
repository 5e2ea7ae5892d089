"""Financial sentiment of texts: negative, neutral, positive.

>>> model = load()
>>> [chunks] = model.prepare(["Operating profit rose to EUR 21.4 mn from EUR 15.9 mn a year earlier."])
>>> model.pool(chunks, model.run(chunks))  # float32 [3], in the order of LABELS

Importing this package is cheap: load() imports torch for CUDA only, and transformers for transformers models only.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from models.manifest import FILE_NAME
from models.model import require

if TYPE_CHECKING:
    from models.sentiment.model import SentimentModel

LABELS = ("negative", "neutral", "positive")
EMBEDDED = "minilm"


def load(
    name_or_source: str = EMBEDDED, *, device: str = "cpu", dtype: str = "auto", threads: int = 1
) -> "SentimentModel":
    """Load a model onto a device: "minilm", a local folder, or a hub id of a transformers sequence classifier.

    dtype: "float32", "bfloat16" or "auto" (bfloat16 where the hardware multiplies bfloat16 matrices and
    torch is installed). threads: CPU threads of one batch. Raises
    models.model.ModelUnavailableError when a package, file or device is missing, a file's digest differs, or the
    model's labels cannot be matched to LABELS.
    """
    from models.sentiment.source import load as load_from

    return load_from(name_or_source, device, dtype, threads)


def require_packages(name_or_source: str) -> None:
    """Raise ModelUnavailableError, with the command that installs it, when a package of the model is missing."""
    if name_or_source != EMBEDDED and not (Path(name_or_source) / FILE_NAME).is_file():
        require(f"the classifier {name_or_source!r}", "pretrained", "torch", "transformers")
