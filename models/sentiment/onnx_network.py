"""The MiniLM classifier on the CPU by onnxruntime: float32, without torch.

Owns the session, the embeddings, the layout of a batch for graph.py and the threads that share a batch. With one thread
a headline alone takes 0.6 of the time of torch; batches take 0.85 of it.
"""

import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import TemporaryFile
from threading import get_native_id
from typing import Any

import numpy as np

from models.model import require
from models.onnx import Graph
from models.sentiment import graph
from models.sentiment.batch import shares
from models.sentiment.chunk import Probabilities
from models.sentiment.text import Ids
from models.sentiment.weights import Array, Shape

# Tokens of one run. Larger runs gain 1 to 2%, and their activations take 45 KB a token.
BUDGET = 256
# Beside texts, a forecast takes as long as beside one thread; at 0 twice as long, at 19 texts wait for the helper.
_NICE = 10
_HIDDEN = np.float32(-1e30)


class OnnxNetwork:
    """Implements models.sentiment.network.Network.

    `threads`: threads of one batch, the caller's included. Each computes sequences of its own: within one operator,
    threads would wait for each other a hundred times a batch.
    """

    dtype = "float32"

    def __init__(self, weights: Mapping[str, Array], shape: Shape, threads: int = 1) -> None:
        self._words = _mapped(weights["words.weight"])
        self._positions = weights["places.weight"]
        self._session = _session(graph.classifier(weights, shape))
        self._threads = threads
        self._helpers = ThreadPoolExecutor(max(1, threads - 1), "sentiment", _give_way)

    def size(self, length: int) -> int:
        return length

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        slices = shares([len(sequence) for sequence in sequences], BUDGET, self._threads)
        found: dict[int, Probabilities] = {}
        waiting = deque(enumerate(slices))

        def work() -> None:
            while waiting:
                try:
                    place, part = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                found[place] = self._run(sequences[part])

        helpers = [self._helpers.submit(work) for _ in range(min(self._threads, len(slices)) - 1)]
        work()
        for helper in helpers:
            # A helper that has not begun has nothing left to do.
            if not helper.cancel():
                helper.result()
        return np.concatenate([found[place] for place in range(len(slices))])

    def _run(self, sequences: Sequence[Ids]) -> Probabilities:
        lengths = np.array([len(sequence) for sequence in sequences])
        place = np.arange(lengths.max())
        real = place < lengths[:, None]
        starts = lengths.cumsum() - lengths
        places = np.flatnonzero(real)
        embeddings = self._words[np.concatenate(sequences)]
        embeddings += self._positions[places % len(place)]
        inputs = {
            graph.EMBEDDINGS: embeddings,
            graph.ROWS: np.where(real, starts[:, None] + place, 0),
            graph.PLACES: places,
            graph.MASK: np.where(real, np.float32(0), _HIDDEN)[:, None, None, :],
            graph.SHARES: (real / lengths[:, None]).astype(np.float32)[:, None, :],
        }
        found: Probabilities = self._session.run([graph.PROBABILITIES], inputs)[0]
        return found


def _give_way() -> None:
    """Let event loops and other engines go before this thread: a helper takes what they leave of the cores.

    Elsewhere than on Linux the call would be for the whole process.
    """
    if sys.platform == "linux":
        here = get_native_id()
        # A sandbox may refuse; an error here would end every helper, and each batch with them.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, here, max(_NICE, os.getpriority(os.PRIO_PROCESS, here)))


def _mapped(array: Array) -> Array:
    """The array in an unnamed temporary file, mapped: of 47 MB of words, texts touch a part; the rest can be evicted.

    Without a place for the file, the array itself.
    """
    try:
        with TemporaryFile() as file:
            array.tofile(file)
            file.flush()
            return np.memmap(file, array.dtype, mode="r", shape=array.shape)
    except OSError:
        return array


def _session(built: Graph) -> Any:
    """An onnxruntime.InferenceSession over the graph. Raises ModelUnavailableError without onnxruntime."""
    require("the sentiment model", "inference", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The graph is written for the operators that are fast. The optimiser would fuse sums into SkipLayerNormalization,
    # which takes five times as long as the sum and the norm.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Plans for memory by shape would be kept for every shape seen.
    options.enable_mem_pattern = False
    # onnxruntime copies the values, so that the arrays are free afterwards.
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in built.weights.values()]
    options.add_external_initializers(list(built.weights), values)
    return onnxruntime.InferenceSession(built.model(), options, providers=["CPUExecutionProvider"])
