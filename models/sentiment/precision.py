"""The torch device and the number format of a sentiment network in torch."""

import torch

from models.model import ModelUnavailableError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def place(device: str) -> torch.device:
    """The device as torch names it. Raises ModelUnavailableError for CUDA where there is none."""
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailableError("no CUDA device is available to this process; use device cpu")
    return found


def chosen(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype; `auto` is bfloat16 if the hardware multiplies bfloat16 matrices (CUDA, AMX), else float32."""
    if dtype == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else torch.float32
    return DTYPES[dtype]


def name(dtype: torch.dtype) -> str:
    """`float32` or `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
