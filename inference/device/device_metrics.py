"""What the inference service tells Prometheus of its GPU; on a CPU none of these series exists.

Owns the series. PyTorch's figures are engine.py's, the driver's nvml.py's.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inference.device.engine import DeviceFigures
from inference.device.nvml import Gpu, Reading

_DOCUMENTED = {
    "market_inference_device_memory_allocated_bytes": "Device memory of this process's tensors.",
    "market_inference_device_memory_reserved_bytes": "Device memory that this process holds, in use or not.",
    "market_inference_device_memory_used_bytes": "Device memory in use by all processes, as the driver says.",
    "market_inference_device_memory_total_bytes": "Device memory that there is.",
    "market_inference_device_utilisation_ratio": "Share of the last moments in which a kernel ran, by any process.",
}


class DeviceMetrics(Collector):
    """Read at every scrape. `gpu` is None where the driver says nothing."""

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
