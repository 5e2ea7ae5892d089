"""The tokeniser computes on the thread that calls it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import time
from models import sentiment
model = sentiment.load("minilm", device="cpu", threads=1)
texts = [f"{number} " + "profit rises while margins widen. " * 100 for number in range(32)]
model.prepare(texts)
process, thread = time.process_time(), time.thread_time()
model.prepare(texts)
print((time.process_time() - process) / (time.thread_time() - thread))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a single core shows nothing")
def test_texts_are_prepared_by_one_thread():
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    printed = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout
    assert float(printed) < 1.2
