"""The report of a GPU's day on machines without a GPU, and the list of wheels that come along."""

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import gpu_report

ROOT = Path(__file__).resolve().parents[2]
MOST_WHEEL_BYTES = 60_000_000


def test_without_a_gpu_the_report_says_what_it_would_run() -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_report"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=hidden,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing was run: PyTorch" in done.stdout
    for part in gpu_report.PARTS:
        assert re.search(rf"│ {part.name} +│ {re.escape(part.what)} +│ {part.seconds} +│", done.stdout)
    assert sum(part.seconds for part in gpu_report.PARTS) <= 8 * 60


def test_the_wheels_are_pinned_as_everywhere_and_stay_under_60_mb() -> None:
    sizes = gpu_report.wheels()
    assert sum(sizes.values()) < MOST_WHEEL_BYTES
    pins = {line.lower().replace("_", "-") for line in (ROOT / "constraints/runtime.txt").read_text().splitlines()}
    assert set(sizes) <= pins
    assert not [name for name in sizes if name.startswith(("torch==", "numpy==", "onnxruntime=="))]


def test_a_part_that_fails_is_a_row_and_the_others_run() -> None:
    def broken():
        yield "first", "1"
        raise RuntimeError("no memory")

    console = Console(record=True, width=120)
    parts = [gpu_report.Part("a", "fails", 1, broken), gpu_report.Part("b", "runs", 1, lambda: iter([("second", "2")]))]
    assert not gpu_report.report(parts, console)
    text = console.export_text()
    for row in ("first +│ 1", "failed +│ RuntimeError: no memory", "second +│ 2"):
        assert re.search(row, text)
    assert gpu_report.report(parts[1:], Console(record=True))


def test_the_least_version_of_pytorch_is_not_above_the_images() -> None:
    pinned = re.search(r"^torch==(\d+)\.(\d+)", (ROOT / "constraints/runtime.txt").read_text(), re.M)
    assert pinned is not None
    assert tuple(map(int, pinned.groups())) >= gpu_report.LEAST_TORCH
