"""LoRA files, in the spelling that ComfyUI's loaders and our nodes read (``mmaudio_core/weights/lora.py``)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.weights.files import open_tensors
from mmaudio_core.weights.lora import LoRAPair, match_lora
from mmaudio_core.weights.metadata import encode
from mmaudio_core.weights.registry import LICENCES
from mmaudio_core.weights.safetensors_file import write_safetensors

from .inject import lora_parameters
from .layer import attach, lora_layers

PREFIX = "diffusion_model."
KIND = "lora"


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """The LoRA alone under the names of the file: ``diffusion_model.<module>.lora_A.weight`` (r, in[, k]), ``.lora_B.weight``
    (out, r[, 1]) and ``.alpha``, a scalar. The tensors are those that are trained, not copies.
    """
    state: dict[str, Tensor] = {}
    for name, _, lora in lora_layers(network):
        module = f"{PREFIX}{name}"
        state[f"{module}.lora_A.weight"] = lora.down.detach()
        state[f"{module}.lora_B.weight"] = lora.up.detach()
        state[f"{module}.alpha"] = lora.alpha.detach()
    return state


def save_lora(
    network: nn.Module,
    path: str | os.PathLike[str],
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the network's LoRA to ``path``, whole or not at all.

    extra: further metadata (JSON values), such as ``step`` or ``licence``; the licence is else that of the published weights.
    dtype: number format of the matrices; None keeps float32.
    state: other values under the names of ``lora_state``, for instance averaged ones.

    Raises:
        InputError: when the network has no LoRA.
        WeightsError: when the file cannot be written.
    """
    tensors = dict(state or lora_state(network))
    if not tensors:
        raise InputError("The network has no LoRA to save; add one first.")
    values: dict[str, Any] = {
        "kind": KIND,
        "licence": LICENCES["flow"],
        "rank": max(lora.rank for _, _, lora in lora_layers(network)),
    }
    spec = getattr(network, "spec", None)
    if isinstance(spec, FlowSpec):
        values |= {"spec": spec.to_dict(), "variant": spec.variant}
    write_safetensors(path, tensors, encode({**values, **(extra or {})}), dtype=dtype)


def load_lora(network: nn.Module, path: str | os.PathLike[str], dropout: float = 0.0) -> list[nn.Parameter]:
    """Puts the LoRA in ``path`` beside the network's layers, to train it further; freezes all else.

    Returns what ``add_lora`` returns.

    Raises:
        WeightsError: when the file is no LoRA, or one of another model or variant.
        InputError: when the network has a LoRA already.
    """
    if lora_parameters(network):
        raise InputError("The network has a LoRA already; merge it before another one is loaded.")
    pairs = match_lora(path, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    tensors = open_tensors(path).tensors
    check_plain(path, pairs, tensors)
    network.requires_grad_(False)
    for pair in pairs:
        down, up = tensors[pair.down], tensors[pair.up]
        alpha = float(tensors[pair.alpha]) if pair.alpha in tensors else float(down.shape[0])
        lora = attach(network.get_submodule(pair.target.removesuffix(".weight")), down.shape[0], alpha, dropout)
        with torch.no_grad():
            lora.down.copy_(down.reshape(lora.down.shape))
            lora.up.copy_(up.reshape(lora.up.shape))
    return lora_parameters(network)


def check_plain(path: str | os.PathLike[str], pairs: Sequence[LoRAPair], tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError when a LoRA file holds more than pairs of matrices, which a plain product would leave out."""
    known = {name for pair in pairs for name in (pair.down, pair.up, pair.alpha)}
    strange = sorted(set(tensors) - known) + [pair.up for pair in pairs if math.prod(tensors[pair.up].shape[2:]) != 1]
    if strange:
        raise WeightsError(
            f"{os.fspath(path)} is no plain LoRA: {len(strange)} of its tensors, such as {strange[0]}, belong to an involved "
            "kind. Use a plain one."
        )
