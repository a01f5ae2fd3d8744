"""Modules under the host's memory management: on the device when used, gone when another node needs the room."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from ...mmaudio_core.pipeline.device import DTYPES, choose_dtype

log = logging.getLogger("mmaudio")

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def compute_device() -> torch.device:
    """The device that the host computes on (the CPU under --cpu)."""
    import comfy.model_management

    return torch.device(comfy.model_management.get_torch_device())


def precision_dtype(precision: str, device: torch.device | None = None) -> torch.dtype:
    """The dtype of a loader's precision widget; "auto" is float32 on a CPU, else the half precision that the device has.

    Raises:
        InputError: when the device does not compute in it.
    """
    device = device or compute_device()
    return choose_dtype(None if precision == "auto" else _NAMES.get(precision, precision), device)


def place_model(model: Any, activation_bytes: float) -> None:
    """Brings a MODEL to its device, as far as it fits beside ``activation_bytes``; other models make way for it."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model], memory_required=activation_bytes)


class _Held(nn.Module):
    """What the host is given: it writes attributes of its own, such as device, onto the module that it places."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.held = module


class Placed:
    """A module that the host places. ``use`` before every computation brings it to the device."""

    def __init__(self, module: nn.Module) -> None:
        import comfy.model_management as management

        from .patcher import WholePatcher

        self.module: Any = module
        self.device = compute_device()
        self.patcher = WholePatcher(_Held(module), load_device=self.device, offload_device=management.unet_offload_device())

    def use(self, activation_bytes: int) -> Any:
        """The module, on the device, with room for ``activation_bytes`` beside it; other models make way for it."""
        import comfy.model_management

        comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes, force_full_load=True)
        return self.module


def flow_dtypes(precision: str, parameters: int) -> tuple[torch.dtype, torch.dtype | None]:
    """(dtype of the flow network's weights, dtype to compute in where it is another one); "auto" follows the host's flags."""
    import comfy.model_management as management

    device = compute_device()
    supported = [torch.bfloat16, torch.float16, torch.float32]
    if precision != "auto":
        return precision_dtype(precision, device), None
    dtype = management.unet_dtype(device=device, model_params=parameters, supported_dtypes=supported)
    if dtype not in DTYPES.values():
        log.warning("The host asks for %s weights, which this pack does not compute in; float32 is used.", dtype)
        dtype = torch.float32
    return dtype, management.unet_manual_cast(dtype, device, supported)
