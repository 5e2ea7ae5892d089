"""What the service asks of torch while torch is being imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.device import cuda
from runtime.extra import ExtraMissingError

USE = """
import sys, threading
from inference.device import cuda
threading.Thread(target=__import__, args=("torch",), daemon=True).start()
while "torch" not in sys.modules:
    pass
cuda.use_threads(1)
cuda.empty_cache()
"""


def test_torch_in_the_middle_of_its_import_is_not_used(tmp_path: Path) -> None:
    """The sentiment model imports torch on a thread of its own while the other models are adopted."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("import threading\nthreading.Event().wait()\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", USE], env=environment, check=False, capture_output=True, timeout=250)
    assert done.returncode == 0, done.stderr


def test_cuda_without_torch_names_the_setting_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissingError, match=r"^MARKET_INFERENCE_DEVICE=cuda needs .*'\.\[cuda\]'"):
        cuda.pick_device("cuda")
