"""Loading sentiment models: from a model folder (the shipped model is one), a transformers folder or a hub id.

Owns the choice of the library: onnxruntime for the embedded architecture on the CPU; torch, imported late, for
everything else.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from models.manifest import FILE_NAME, Manifest
from models.model import ModelUnavailableError, require
from models.sentiment import EMBEDDED, minilm
from models.sentiment.model import Expected, SentimentModel
from models.sentiment.network import Network
from models.sentiment.onnx_network import OnnxNetwork
from models.sentiment.text import Windows
from models.sentiment.weights import Shape

SHIPPED = Path(__file__).parent / "embedded"
TRANSFORMERS = "transformers"
"""The architecture in manifests of folders that transformers reads."""
DTYPES = ("float32", "bfloat16")


def load(name_or_source: str, device: str, dtype: str, threads: int) -> SentimentModel:
    """See models.sentiment.load."""
    if dtype not in ("auto", *DTYPES):
        raise ModelUnavailableError(f"dtype {dtype!r} is not offered; use auto, {' or '.join(DTYPES)}")
    folder = SHIPPED if name_or_source == EMBEDDED else Path(name_or_source)
    if (folder / FILE_NAME).is_file() or folder == SHIPPED:
        return _of_folder(Manifest.of(folder), folder, device, dtype, threads)
    return _pretrained(name_or_source, device, dtype)


def _of_folder(manifest: Manifest, folder: Path, device: str, dtype: str, threads: int) -> SentimentModel:
    """The model of a folder, under the manifest's name and version. Raises ModelUnavailableError."""
    if manifest.architecture == TRANSFORMERS:
        stored = _stored(manifest, folder) if minilm.EXPECTED in manifest.files else None
        with manifest.linked(folder) as links:
            return _pretrained(str(links), device, dtype, manifest, stored)
    network = _network(folder, manifest, device, dtype, threads)
    windows = Windows(minilm.tokenizer(), int(manifest.settings["max_length"]))
    masks = manifest.settings.get("about") == minilm.MASKS
    return SentimentModel(
        manifest.name, manifest.version, windows, network, _stored(manifest, folder), english=True, masks=masks
    )


def _stored(manifest: Manifest, folder: Path) -> Expected:
    """The folder's stored answers, for self-tests."""
    rows = json.loads(manifest.read(folder, minilm.EXPECTED))
    return Expected(
        tuple(row["text"] for row in rows), np.array([row["probabilities"] for row in rows], dtype=np.float32)
    )


def _pretrained(
    source: str, device: str, dtype: str, manifest: Manifest | None = None, stored: Expected | None = None
) -> SentimentModel:
    named = source if manifest is None else manifest.name
    require(f"the classifier {named!r}", "pretrained", "torch", "transformers")
    from models.sentiment import precision, pretrained

    place = precision.place(device)
    return pretrained.load(source, place, precision.chosen(dtype, place), manifest, stored)


def _network(folder: Path, manifest: Manifest, device: str, dtype: str, threads: int) -> Network:
    if device == "cpu" and (dtype == "float32" or (dtype == "auto" and not _torch_multiplies_bfloat16())):
        return OnnxNetwork(minilm.embedded(folder, manifest), Shape(), threads)
    require(f"the sentiment model on {device} in {dtype}", "cuda", "torch")
    from models.sentiment import precision
    from models.sentiment.encoder import Classifier
    from models.sentiment.torch_network import PackedNetwork

    place = precision.place(device)
    number = precision.chosen(dtype, place)
    model = Classifier.of(minilm.embedded(folder, manifest)).eval().requires_grad_(False)
    return PackedNetwork(model, place, number)


def _torch_multiplies_bfloat16() -> bool:
    """Whether torch is installed and the processor has the matrix instructions that make bfloat16 the faster format.

    Read from Linux, since an import of torch takes seconds.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags and find_spec("torch") is not None
