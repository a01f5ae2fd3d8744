"""How this pack's own sampler computes on the host's models."""

from __future__ import annotations

from typing import Any

from ...mmaudio_core.pipeline.accelerate import Accelerator, Speed
from .attention import host_attention, model_attention


def own_accelerator() -> Accelerator:
    """For modules of plain torch layers, which the host moves as a whole."""
    return Accelerator(attend=host_attention())


def model_accelerator(model: Any, net: Any) -> Accelerator:
    """For the network ``net`` of a MODEL that was placed: the fast path where all of its weights are there as they are used."""
    options = getattr(model, "model_options", {}).get("transformer_options")
    attend = model_attention(options) or net.attention
    if _changes_weights_at_use(net):
        return Accelerator(Speed("plain"), attend)
    version = getattr(model.model, "current_weight_patches_uuid", None)
    return Accelerator(attend=attend, version=version, patched=True)


def _changes_weights_at_use(net: Any) -> bool:
    """Whether the host patches or moves weights when a layer runs, as it does where not all of them fit."""
    return any(getattr(module, "weight_function", None) or getattr(module, "bias_function", None) for module in net.modules())


def let_go(net: Any) -> None:
    """Drops what the fast path keeps on a GPU, so that the memory of weights is free when the host moves them."""
    if net.device.type != "cpu":
        net.fast_cache.clear()
