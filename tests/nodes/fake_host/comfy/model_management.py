"""Devices and memory: a CPU on which everything fits. ``loaded`` keeps what was asked for."""

from __future__ import annotations

from typing import Any

import torch

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
loaded: list[tuple[Any, float, bool]] = []
interrupted = False
answers: dict[str, Any] = {}
"""What unet_dtype and unet_manual_cast say, where a test wants something else than float32."""


class InterruptProcessingException(Exception):
    pass


def get_torch_device() -> torch.device:
    return torch.device("cpu")


def unet_offload_device() -> torch.device:
    return torch.device("cpu")


def vae_offload_device() -> torch.device:
    return torch.device("cpu")


def unet_dtype(device=None, model_params=0, supported_dtypes=_FLOATS, weight_dtype=None) -> torch.dtype:
    assert model_params > 0
    return answers.get("unet_dtype", torch.float32)


def unet_manual_cast(weight_dtype, inference_device, supported_dtypes=_FLOATS) -> torch.dtype | None:
    return answers.get("unet_manual_cast")


def load_models_gpu(models, memory_required=0, force_patch_weights=False, minimum_memory_required=None, force_full_load=False):
    for patcher in models:
        loaded.append((patcher, memory_required, force_full_load))
        patcher.place()


def throw_exception_if_processing_interrupted() -> None:
    if interrupted:
        raise InterruptProcessingException
