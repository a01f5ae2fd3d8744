"""Linear maps and convolutions over time whose weights are laid out once, as the device wants them."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from . import onednn, winograd
from .toom import FOUR, Given, ToomConv, form_for

Tile = Literal[0, 2, 4]
"""Outputs per Winograd tile of a convolution with three taps; 0 for direct convolution."""
USUAL_ROWS = 512


class Dense:
    """y = x W^T + b for x (..., K), weight (N, K), bias (N,) or None.

    Packed for oneDNN, a copy, on a CPU in float32; the weight itself elsewhere.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, rows: int = USUAL_ROWS) -> None:
        weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self._packed: Any = onednn.pack_linear(weight, rows) if onednn.packs(weight) else None
        self._weight = None if self._packed is not None else weight

    def __call__(self, x: Tensor) -> Tensor:
        if self._weight is None:
            return onednn.linear(x, self._packed, self.bias)
        return F.linear(x, self._weight, self.bias)


class Conv:
    """Convolution over time of channel-last x (B, L, C) -> (B, L, O), "same" zero padding, weight (O, C, kernel), odd kernel.

    tile: Winograd's tile for three taps on a CPU in float32; 0 leaves convolutions with more taps direct too.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, dilation: int = 1, tile: Tile = 2, length: int = USUAL_ROWS
    ) -> None:
        weight = weight.detach()
        kernel = weight.shape[-1]
        self.bias = None if bias is None else bias.detach()
        self._dilation, self._padding = dilation, dilation * (kernel // 2)
        self._products: list[Any] = []
        self._packed: Any = None
        self._image: Tensor | None = None
        self._tile: Tile = 0
        self._long: ToomConv | None = None
        # The form that rounds like a direct convolution; guidance amplifies what the faster ones round more.
        form = FOUR if tile and kernel > 3 and form_for(kernel, min(weight.shape[:2])) else None
        if not onednn.packs(weight):
            # A one-row image in channels-last: where the weight lies so already, this is a view.
            self._image = weight[:, :, None].contiguous(memory_format=torch.channels_last)
        elif kernel == 3 and dilation == 1 and tile:
            self._tile = tile
            self._products = [onednn.pack_linear(w, length) for w in winograd.transform_weight(weight, tile)]
        elif form is not None:
            self._long = ToomConv(weight, bias, dilation, form)
        else:
            self._packed = onednn.pack_conv(weight, dilation, self._padding, length)

    def __call__(self, x: Tensor) -> Tensor:
        if self._image is not None:
            image = x.transpose(1, 2)[:, :, None]
            out = F.conv2d(image, self._image, self.bias, padding=(0, self._padding), dilation=(1, self._dilation))
            return out[:, :, 0].transpose(1, 2)
        if self._packed is not None:
            return onednn.conv(x, self._packed, self.bias, self._dilation, self._padding)
        if self._long is not None:
            convolve, around = self._long, self._padding
            return torch.stack([convolve(Given(clip), around, around) for clip in x])
        inputs = winograd.transform_input(x, self._tile)
        products = tuple(onednn.linear(v, w, None) for v, w in zip(inputs, self._products, strict=True))
        out = winograd.transform_output(products, x.shape[1], self._tile)
        return out if self.bias is None else out.add_(self.bias)
