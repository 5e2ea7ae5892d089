"""The sentiment engine compared with the obvious implementation, as a ratio in one run on one core.

The obvious implementation is transformers' BertModel in float32, with texts in the given order and batches of 32,
padded to the longest text. Both sides tokenise, share the base weights, and alternate. The thread's CPU time is
measured, so that other work on the machine matters little. All texts are distinct, so that the engine cannot gain from
repeated texts.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from models.sentiment import load
from models.sentiment.minilm import BASE, tokenizer
from models.sentiment.model import SentimentModel
from training.sentiment.phrases import phrases

BATCH = 32
COUNT = 256
ROUNDS = 3


def obvious() -> Callable[[list[str]], Any]:
    """Float32 padded batches through transformers, mean pooling and a linear head."""
    from transformers import BertModel

    spec = find_spec(BASE.package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"needs the package {BASE.package}")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    head = torch.nn.Linear(model.config.hidden_size, 3)
    words = tokenizer()
    words.enable_padding()
    words.enable_truncation(128)

    def answer(texts: list[str]) -> None:
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                encodings = words.encode_batch(texts[start : start + BATCH])
                ids = torch.tensor([encoding.ids for encoding in encodings])
                mask = torch.tensor([encoding.attention_mask for encoding in encodings])
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
                head(pooled).softmax(1)

    return answer


def ours(model: SentimentModel) -> Callable[[list[str]], Any]:
    """prepare() and run() in batches of the size of a busy service."""

    def answer(texts: list[str]) -> None:
        for start in range(0, len(texts), 4 * BATCH):
            prepared = model.prepare(texts[start : start + 4 * BATCH])
            model.run([chunk for chunks in prepared for chunk in chunks])

    return answer


def seconds(answer: Callable[[list[str]], Any], texts: list[str]) -> float:
    began = time.thread_time()
    answer(texts)
    return time.thread_time() - began


def main() -> dict[str, float]:
    """Print texts per second of CPU time on both sides, and print and return the ratio of the best rounds."""
    torch.set_num_threads(1)
    texts = [row.text for row in phrases(COUNT, seed=11)]
    model = load()
    sides = {f"engine ({model.dtype})": ours(model), "padded batches (float32)": obvious()}
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, answer in sides.items():
            best[name] = min(best[name], seconds(answer, texts))
    for name, spent in best.items():
        print(f"{name:>26}: {COUNT / spent:8.0f} texts per CPU second")
    engine, plain = best.values()
    print(f"sentiment: {plain / engine:.2f} times the padded batches of transformers")
    return {f"sentiment ({model.dtype}), against padded batches in float32": plain / engine}


if __name__ == "__main__":
    main()
