"""Which number format a network computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_precision(precision: Precision, device: str) -> Literal["fp32", "bf16", "fp16"]:
    """What ``auto`` stands for on a device: bf16 where the hardware multiplies it natively, else fp32.

    A CPU without native bf16 takes about five times as long in bf16 as in fp32.
    """
    if precision != "auto":
        return precision
    return "bf16" if _native_bf16(device) else "fp32"


def torch_dtype(precision: Precision, device: str) -> torch.dtype:
    """The dtype of :func:`resolve_precision`."""
    import torch

    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return names[resolve_precision(precision, device)]


def _native_bf16(device: str) -> bool:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device != "cpu":
        return False
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.10 on
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
