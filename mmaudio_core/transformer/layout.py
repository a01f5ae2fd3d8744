"""Weights laid out in memory as an accelerator's kernels want them, under the same names and with the same values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..layers.mlp import GatedConvMLP, GatedMLP
from .attention import HeadAttention
from .model import FlowNetwork


@torch.no_grad()
def lay_out_(net: FlowNetwork, by_part: bool) -> None:
    """Reorders memory in place: taps of convolutions outside of their channels, projections that are used together together.

    by_part: also the rows of packed q, k and v, which state dictionaries undo. Not for networks whose weights others patch by
    name while they are in use.
    """
    for module in net.modules():
        if isinstance(module, (GatedMLP, GatedConvMLP)):
            _join_([module.w1.weight, module.w3.weight])
        elif isinstance(module, nn.Conv1d):
            _join_([module.weight])
        elif isinstance(module, HeadAttention) and by_part:
            module.pack_by_part_()
    joint: Any = net.joint_blocks
    fused: Any = net.fused_blocks
    latent = [block.latent_block.adaLN_modulation[1] for block in joint] + [block.adaLN_modulation[1] for block in fused]
    others = [stream.adaLN_modulation[1] for block in joint for stream in (block.clip_block, block.text_block)]
    for maps in (latent, [*others, net.final_layer.adaLN_modulation[1]]):
        _join_([m.weight for m in maps])
        _join_([m.bias for m in maps])


def _join_(tensors: list[Tensor]) -> None:
    """One piece of memory for all of them, in order; (O, C, kernel) with the channels last."""
    if _is_joined(tensors):
        return
    whole = torch.cat([t.detach().transpose(1, 2) if t.ndim == 3 else t.detach() for t in tensors])
    for tensor, part in zip(tensors, whole.split([t.shape[0] for t in tensors]), strict=True):
        tensor.data = part.transpose(1, 2) if tensor.ndim == 3 else part


def _is_joined(tensors: list[Tensor]) -> bool:
    first = tensors[0]
    wanted = (first.transpose(1, 2) if first.ndim == 3 else first).is_contiguous()
    expected = first.data_ptr()
    for tensor in tensors:
        if tensor.data_ptr() != expected or tensor.stride() != first.stride():
            return False
        expected += tensor.numel() * tensor.element_size()
    return wanted and first.untyped_storage().data_ptr() == tensors[-1].untyped_storage().data_ptr()
