"""The number format of a sentiment network on a device."""

import torch

from models.model import ModelUnavailableError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def chosen(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype; `auto` is bfloat16 if the hardware multiplies bfloat16 matrices (CUDA, AMX), else float32.

    Raises ModelUnavailableError for an unknown format.
    """
    if dtype == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ModelUnavailableError(f"dtype {dtype!r} is not offered; use auto, {' or '.join(DTYPES)}")
    return DTYPES[dtype]


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
