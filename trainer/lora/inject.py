"""LoRAs put beside the frozen weights of a network, and merged into them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mmaudio_core.errors import InputError

from ..engine.generators import generator_of
from .layer import attach, detach_, lora_layers

DEFAULT_TARGETS = ("*.attn.qkv", "*.linear1", "*.ffn.w1", "*.ffn.w2", "*.ffn.w3")
"""The projections in front of and behind every attention, and the feed-forward layers."""
KINDS = (nn.Linear, nn.Conv1d)
MASKS = 7
"""Distinguishes the draws of dropout from those of the step's noise."""


def add_lora(
    network: nn.Module,
    rank: int,
    alpha: float,
    targets: Sequence[str] = DEFAULT_TARGETS,
    *,
    dropout: float = 0.0,
    seed: int = 0,
) -> list[nn.Parameter]:
    """Puts a LoRA beside every linear and convolution layer whose name matches one of ``targets``; freezes all else.

    targets: shell patterns over names of modules, "*" matching dots too.
    alpha: the LoRA's output is multiplied by alpha / rank.
    dropout: share of the rank's components left out while training (see ``LowRank``).

    Returns the parameters to train, in the order of the modules. The core's fast path reads weights alone and so does not see
    a LoRA: give it a copy of the network after ``merge_``.

    Raises:
        InputError: for a rank below 1, a dropout outside [0, 1), a pattern that matches no layer, where a LoRA is already, or
            when the weights lie as the fast path wants them.
    """
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise InputError(
            f"A LoRA of rank {rank}, alpha {alpha:g} and dropout {dropout:g} was asked for; rank 1 or more, alpha above 0 and "
            "dropout from 0 to below 1 are possible."
        )
    if lora_parameters(network):
        raise InputError("The network has a LoRA already; merge it before another one is added.")
    if any(getattr(module, "by_part", False) for module in network.modules()):
        raise InputError("The network's weights were rearranged for inference; load it anew before a LoRA is added.")
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    parameters: list[nn.Parameter] = []
    for name in matching_layers(network, targets):
        adapter = attach(network.get_submodule(name), rank, alpha, dropout)
        adapter.reset_(generator)
        parameters += [adapter.down, adapter.up]
    return parameters


def matching_layers(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the linear and convolution layers that match one of the shell patterns, in the order of the modules.

    Raises:
        InputError: when there is no pattern, or one matches nothing.
    """
    names = [name for name, module in network.named_modules() if _fits(module)]
    idle = [pattern for pattern in targets if not any(fnmatchcase(name, pattern) for name in names)]
    if idle or not targets:
        said = f"The pattern {idle[0]!r} matches" if idle else "No pattern was given, which matches"
        raise InputError(f"{said} no layer of the network for a LoRA; its layers have names such as {_some(names)}.")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in targets)]


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """What of the network is trained, in the order of the modules."""
    return [parameter for _, _, lora in lora_layers(network) for parameter in (lora.down, lora.up)]


@torch.no_grad()
def draw_dropout(network: nn.Module, seed: int, step: int, positions: Sequence[int]) -> None:
    """Draws which components each sample of the next pass loses.

    positions: places of the samples in the global batch, on which, with seed and step, alone it depends.
    """
    adapters = [lora for _, _, lora in lora_layers(network) if lora.dropout]
    rows: list[list[Tensor]] = []
    for position in positions:
        generator = generator_of(seed, MASKS, step, position)
        rows.append([torch.rand(lora.rank, generator=generator) for lora in adapters])
    for i, lora in enumerate(adapters):
        drawn = torch.stack([row[i] for row in rows])
        lora.kept = ((drawn >= lora.dropout) / (1 - lora.dropout)).to(lora.up.device)


def merge_(network: nn.Module, strength: float = 1.0) -> nn.Module:
    """Adds every LoRA, times ``strength``, to its layer's weight in place and takes it off; returns the network."""
    for _, layer, lora in list(lora_layers(network)):
        held: Any = layer
        with torch.no_grad():
            held.weight.copy_(held.weight + strength * lora.delta())  # the sum is as wide as the LoRA
        detach_(layer)
    return network


def _fits(module: nn.Module) -> bool:
    # A convolution in groups has no such product of two matrices.
    return (
        isinstance(module, KINDS) and getattr(module, "groups", 1) == 1 and getattr(module, "padding_mode", "zeros") == "zeros"
    )


def _some(names: Sequence[str]) -> str:
    shown = [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})] if names else ["none"]
    return ", ".join(shown)
