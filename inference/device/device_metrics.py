"""Prometheus metrics of the GPU; on a CPU none of these series exists.

Owns the series. cuda.py reads PyTorch's figures, nvml.py reads the driver's.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inference.device.cuda import DeviceFigures
from inference.device.nvml import Gpu, Reading

_DOCUMENTED = {
    "market_inference_device_memory_allocated_bytes": "Device memory of this process's tensors.",
    "market_inference_device_memory_reserved_bytes": "Device memory that this process reserves, used or not.",
    "market_inference_device_memory_used_bytes": "Device memory used by all processes, from the driver.",
    "market_inference_device_memory_total_bytes": "Device memory in total.",
    "market_inference_device_utilisation_ratio": "Share of the last sample period in which any kernel ran.",
}


class DeviceMetrics(Collector):
    """Reads the figures at every scrape. `gpu` is None without a driver."""

    def __init__(self, figures: Callable[[], DeviceFigures], gpu: Gpu | None) -> None:
        self._figures = figures
        self._gpu = gpu

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._figures()
        reading = Reading(None, None) if self._gpu is None else self._gpu.read()
        values = (figures.allocated, figures.reserved, reading.used, figures.total, reading.utilisation)
        for (name, documentation), value in zip(_DOCUMENTED.items(), values, strict=True):
            if value is not None:
                yield GaugeMetricFamily(name, documentation, value=value)

    def describe(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(name, documentation) for name, documentation in _DOCUMENTED.items()]
