"""From a text to token ids: cleaning, tokens, and windows for texts longer than the model's window.

Owns all processing of a text before tensors. Training uses the same functions, so that training and serving see equal
inputs. The tokeniser and the length of the window are parameters of the model.
"""

import os
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

# The tokeniser takes every core for a list of texts unless told otherwise: one client's long texts would take the cores
# of the event loop and of the engines.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Ids = npt.NDArray[np.int64]

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_CLOSING = "\"'”’»)]"
_SENTENCE_END = ".!?…"


def clean(text: str) -> str:
    """The text with single spaces and without web addresses; a text of web addresses only keeps the addresses."""
    return " ".join(_URL.sub(" ", text).split()) or " ".join(text.split())


class Windows:
    """Turns texts into windows of at most `length` token ids, special tokens included.

    A short text is one window. A longer text is cut after the last sentence end in the second half of the window, else
    between two words. Every token is in exactly one window.
    """

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        special = self._tokenizer.encode("").ids
        self._prefix, self._suffix = special[: (len(special) + 1) // 2], special[(len(special) + 1) // 2 :]
        self.special = len(special)
        self.room = length - self.special
        if self.room < 1:
            raise ValueError(f"a window of {length} tokens has no room for text")

    def of(self, texts: Sequence[str]) -> list[list[Ids]]:
        """The windows of each text, in order: int64 arrays [n] with n <= length. Safe from any thread."""
        cleaned = [clean(text) for text in texts]
        encodings = self._tokenizer.encode_batch(cleaned, add_special_tokens=False)
        return [self._windows(encoding, text) for encoding, text in zip(encodings, cleaned, strict=True)]

    def _windows(self, encoding: Encoding, text: str) -> list[Ids]:
        ids = encoding.ids
        if len(ids) <= self.room:
            return [self._framed(ids)]
        offsets, windows, start = encoding.offsets, [], 0
        while start < len(ids):
            end = self._end(text, offsets, start)
            windows.append(self._framed(ids[start:end]))
            start = end
        return windows

    def _framed(self, ids: list[int]) -> Ids:
        return np.array(self._prefix + ids + self._suffix, dtype=np.int64)

    def _end(self, text: str, offsets: Sequence[tuple[int, int]], start: int) -> int:
        limit = start + self.room
        if limit >= len(offsets):
            return len(offsets)
        candidates = [end for end in range(limit, start + self.room // 2, -1) if _apart(text, offsets, end)]
        sentences = (end for end in candidates if _ends_sentence(text, offsets[end - 1][1]))
        return next(sentences, candidates[0] if candidates else limit)


def _apart(text: str, offsets: Sequence[tuple[int, int]], end: int) -> bool:
    """Whether white space lies between the tokens `end - 1` and `end`, in either token's offsets or in between."""
    return any(character.isspace() for character in text[offsets[end - 1][1] : offsets[end][0] + 1])


def _ends_sentence(text: str, end: int) -> bool:
    return text[:end].rstrip(_CLOSING).endswith(tuple(_SENTENCE_END))
