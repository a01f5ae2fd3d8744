"""Convolution over time without padding, as oneDNN does it fastest, on (rows, C) in float32 on a CPU."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from . import onednn

WIDE = 128
"""Channels out from which on the gathered product is used: it is as fast, and its layout suits every number of rows, while a
packed convolution lays its weights out anew at every call that is much shorter or longer than it was packed for."""
USUAL_ROWS = 4096


class TapConv:
    """x (rows, C) -> (rows - dilation * (kernel - 1), O), weight (O, C, kernel), bias (O,) or None; the weights are copied.

    The plain convolution where oneDNN cannot be used.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> None:
        self._channels, self._inputs, self._kernel = weight.shape
        self._dilation = dilation
        self._bias = None if bias is None else bias.detach()
        self._gathered: Any = None
        self._packed: Any = None
        self._weight: Tensor | None = None
        weight = weight.detach()
        if not onednn.packs(weight):
            self._weight = weight
        elif self._channels >= WIDE:
            self._gathered = onednn.pack_linear(weight.transpose(1, 2).flatten(1), USUAL_ROWS)
        else:
            self._packed = onednn.pack_conv(weight, dilation, 0, USUAL_ROWS)

    def __call__(self, x: Tensor, before: int = 0, after: int = 0) -> Tensor:
        """``before`` and ``after`` rows of zeros are put around ``x`` first."""
        if before or after:
            x = F.pad(x, (0, 0, before, after))
        if self._weight is not None:
            return F.conv1d(x.T[None], self._weight, self._bias, dilation=self._dilation)[0].T
        if self._gathered is None:
            return onednn.conv(x[None], self._packed, self._bias, self._dilation, 0)[0]
        rows = x.shape[0] - self._dilation * (self._kernel - 1)
        x = x.contiguous()
        windows = x.as_strided((rows, self._kernel, self._inputs), (self._inputs, self._dilation * self._inputs, 1))
        return onednn.linear(windows.reshape(rows, -1), self._gathered, self._bias)
