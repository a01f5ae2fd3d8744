"""Convolution over time on channel-last tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .operations import TORCH, Operations


class _ChannelLast:
    """In front of a Conv1d class in the order of bases: (B, L, C_in) -> (B, L, C_out)."""

    def forward(self, x: Tensor) -> Tensor:
        channels_first: Any = super()
        return channels_first.forward(x.transpose(1, 2)).transpose(1, 2)


class ChannelLastConv1d(_ChannelLast, nn.Conv1d):
    """torch's own convolution on channel-last tensors."""


def channel_last_conv(
    channels_in: int, channels_out: int, kernel: int, bias: bool = True, operations: Operations = TORCH
) -> nn.Conv1d:
    """``Conv k`` of the paper: (B, L, C_in) -> (B, L, C_out), stride 1, padding (k - 1) / 2.

    A subclass of ``operations.Conv1d``, not a wrapper around one, so that the parameters keep their published names.
    """
    base = operations.Conv1d
    kind = ChannelLastConv1d if base is nn.Conv1d else type("ChannelLastConv1d", (_ChannelLast, base), {})
    return kind(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
