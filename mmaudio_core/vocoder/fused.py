"""BigVGAN with a fused activation: time-major throughout, the snake and its two filters in one kernel.

Convolutions of time-major signals run as matrix products without transposes on a GPU. The module stays the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.dense import Conv
from ..kernels.graphs import Graphed
from ..spec.model import VocoderSpec
from .activations import BETA_FLOOR, AntiAliasedSnake

SnakeKernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""See ``kernels.snake.anti_aliased_snake``."""


class FusedBigVGAN:
    """The vocoder of ``module`` with the activation ``kernel``; log-mel (B, M, F) -> samples (B, 1, F * hop).

    Reads the module's own weights, whose memory it reorders; nothing is read back from the device. graphs: replayed as a CUDA
    graph.
    """

    def __init__(self, module: Any, kernel: SnakeKernel, graphs: bool = False) -> None:
        self._run: Callable[[Tensor], Tensor] = Graphed(self._samples) if graphs else self._samples
        self.spec: VocoderSpec = module.spec
        self._branches = len(self.spec.block_kernels)
        self._first = _conv(module.conv_pre)
        self._ups: list[nn.ConvTranspose1d] = [up for (up,) in module.ups]
        self._blocks = [_Block(block, kernel) for block in module.resblocks]
        self._active, self._last = _Snake(module.activation_post, kernel), _conv(module.conv_post)
        self._dtype = module.conv_pre.weight.dtype

    @torch.no_grad()
    def __call__(self, mel: Tensor) -> Tensor:
        return self._run(mel)

    def _samples(self, mel: Tensor) -> Tensor:
        x = self._first(mel.to(self._dtype).transpose(1, 2))
        for stage, up in enumerate(self._ups):
            # A transposed convolution gives channels first; one copy brings time to the front again.
            x = up(x.transpose(1, 2)).transpose(1, 2).contiguous()
            blocks = self._blocks[stage * self._branches : (stage + 1) * self._branches]
            total = blocks[0](x)
            for block in blocks[1:]:
                total = total.add_(block(x))
            x = total.div_(self._branches)
        x = self._last(self._active(x)).transpose(1, 2)
        return torch.tanh(x) if self.spec.final_tanh else x.clamp(-1, 1)


class _Block:
    def __init__(self, block: Any, kernel: SnakeKernel) -> None:
        snakes = [_Snake(module, kernel) for module in block.activations]
        convs = [_conv(conv) for pair in zip(block.convs1, block.convs2, strict=True) for conv in pair]
        self._steps = [(snakes[i], convs[i], snakes[i + 1], convs[i + 1]) for i in range(0, len(convs), 2)]

    def __call__(self, x: Tensor) -> Tensor:
        for first, dilated, second, plain in self._steps:
            x = plain(second(dilated(first(x)))).add_(x)
        return x


class _Snake:
    """(B, T, C) -> (B, T, C)."""

    def __init__(self, module: AntiAliasedSnake, kernel: SnakeKernel) -> None:
        self._kernel, self._taps = kernel, module.filter.float()
        self._alpha = module.act.alpha.detach().float().exp()
        self._inverse_beta = 1 / (module.act.beta.detach().float().exp() + BETA_FLOOR)

    def __call__(self, x: Tensor) -> Tensor:
        return self._kernel(x.transpose(1, 2), self._alpha, self._inverse_beta, self._taps).transpose(1, 2)


def _conv(conv: nn.Conv1d) -> Conv:
    if conv.weight.device.type != "cpu":
        conv.weight.data = conv.weight.detach().transpose(1, 2).contiguous().transpose(1, 2)
    return Conv(conv.weight, conv.bias, dilation=conv.dilation[0], tile=0)
