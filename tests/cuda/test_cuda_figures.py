"""PyTorch and the driver report the same device."""

import pynvml
import torch

from inference.device.cuda import device_figures
from inference.device.nvml import Gpu


def test_the_driver_finds_the_device_that_pytorch_uses(device: str) -> None:
    held = torch.ones(1 << 24, device=device)
    figures = device_figures(device)
    gpu = Gpu.find(figures.uuid)
    assert gpu is not None
    assert pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByUUID(figures.uuid)) == figures.name
    reading = gpu.read()
    assert reading.used is not None
    assert held.nbytes <= figures.allocated <= figures.reserved <= reading.used <= figures.total
    assert reading.utilisation is None or 0 <= reading.utilisation <= 1
