"""Convolution over time on channel-last tensors."""

from __future__ import annotations

from torch import Tensor, nn


class ChannelLastConv1d(nn.Conv1d):
    """``Conv k`` of the paper: (B, L, C_in) -> (B, L, C_out), stride 1, padding (k - 1) / 2."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
