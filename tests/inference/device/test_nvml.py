"""Metrics of the GPU, as far as the driver supports the queries."""

import shutil
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from prometheus_client import CollectorRegistry

from inference.device.cuda import DeviceFigures
from inference.device.device_metrics import DeviceMetrics
from inference.device.nvml import Gpu, Reading

FIGURES = DeviceFigures("cuda", "GPU", 1, allocated=10, reserved=20, total=100, uuid="GPU-0")


class Driver:
    """A replacement of pynvml with one GPU. `tells`: supported queries with answers; other queries are unsupported."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *tells: str) -> None:
        self._tells = tells

    def nvmlInit(self) -> None: ...  # noqa: N802 -- NVML's names

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        if uuid != FIGURES.uuid:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        return self._tell("memory", SimpleNamespace(used=60))

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:  # noqa: N802
        return self._tell("rates", SimpleNamespace(gpu=75))

    def _tell(self, what: str, answer: Any) -> Any:
        if what not in self._tells:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return answer


def series(gpu: Gpu | None) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(DeviceMetrics(lambda: FIGURES, gpu))
    found = (sample for family in registry.collect() for sample in family.samples)
    return {sample.name.removeprefix("market_inference_device_"): sample.value for sample in found}


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a driver")
def test_without_a_driver_there_is_no_gpu():
    assert Gpu.find("GPU-0") is None


def test_a_gpu_that_the_driver_does_not_know_is_none():
    assert Gpu.find("GPU-1", Driver("memory", "rates")) is None


def test_what_pytorch_and_the_driver_say_is_told():
    gpu = Gpu.find(FIGURES.uuid, Driver("memory", "rates"))
    assert gpu is not None
    assert gpu.read() == Reading(60, 0.75)
    assert series(gpu) == {
        "memory_allocated_bytes": 10,
        "memory_reserved_bytes": 20,
        "memory_used_bytes": 60,
        "memory_total_bytes": 100,
        "utilisation_ratio": 0.75,
    }


def test_what_is_not_told_is_absent():
    gpu = Gpu.find(FIGURES.uuid, Driver("memory"))
    assert gpu is not None
    assert gpu.read() == Reading(60, None)
    assert "utilisation_ratio" not in series(gpu)
    assert series(None).keys() == {"memory_allocated_bytes", "memory_reserved_bytes", "memory_total_bytes"}
