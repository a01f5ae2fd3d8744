"""One layer with a LoRA beside its weight (arXiv 2106.09685, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.errors import InputError
from mmaudio_core.layers.conv import ChannelLastConv1d


class LowRank(nn.Module):
    """alpha / r * up(down(x)) for a layer with weight (out, in) or (out, in, k); shapes of inputs are the layer's.

    ``down`` is (r, in) or (r, in, k) and begins normal with variance 1 / fan-in; ``up`` is (out, r) or (out, r, 1) and begins
    at zero, so that training begins with the network as it is. Both are float32 whatever the layer holds. While training,
    ``dropout`` of the r components are left out of each sample and the others made larger by as much; ``draw_dropout`` says
    which, since a mask that is drawn here would be another one when a checkpointed block is computed again.
    """

    alpha: Tensor
    kept: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv1d, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        weight = layer.weight
        taps = (1,) * (weight.ndim - 2)
        self.rank, self.dropout, self.channel_last = rank, dropout, isinstance(layer, ChannelLastConv1d)
        self.stride, self.padding, self.dilation = (
            (layer.stride, layer.padding, layer.dilation) if isinstance(layer, nn.Conv1d) else ((1,), (0,), (1,))
        )
        self.down = nn.Parameter(torch.empty(rank, *weight.shape[1:], device=weight.device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *taps, device=weight.device))
        self.register_buffer("alpha", torch.tensor(float(alpha), device=weight.device))
        self.kept = None

    @torch.no_grad()
    def reset_(self, generator: torch.Generator) -> None:
        """``down`` drawn anew from a generator on the CPU, ``up`` zero."""
        drawn = torch.randn(self.down.shape, generator=generator) / math.sqrt(math.prod(self.down.shape[1:]))
        self.down.copy_(drawn)
        self.up.zero_()

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if down.ndim == 2:
            h = F.linear(x, down)
            return F.linear(self._dropped(h, -1), up) * (self.alpha / self.rank)
        if self.channel_last:
            x = x.transpose(1, 2)
        h = self._dropped(F.conv1d(x, down, None, self.stride, self.padding, self.dilation), 1)
        out = F.conv1d(h, up) * (self.alpha / self.rank)
        return out.transpose(1, 2) if self.channel_last else out

    def delta(self) -> Tensor:
        """What the layer's weight would grow by if this were merged into it: alpha / r * up @ down, in float32 or wider."""
        wide = torch.promote_types(self.up.dtype, torch.float32)
        flat = self.up.to(wide).flatten(1) @ self.down.to(wide).flatten(1)
        return (flat * (self.alpha / self.rank)).reshape(self.up.shape[0], *self.down.shape[1:])

    def _dropped(self, h: Tensor, dim: int) -> Tensor:
        if not self.training or not self.dropout:
            return h
        if self.kept is None or self.kept.shape[0] != h.shape[0]:
            raise InputError("A LoRA with dropout was trained without its masks; call draw_dropout before each pass.")
        shape = [1] * h.ndim
        shape[0], shape[dim] = self.kept.shape
        return h * self.kept.to(h.dtype).reshape(shape)


class _Adapted:
    """In front of a layer's class in the order of bases: its output plus that of its LoRA.

    Not a wrapper around the layer, so that the layer's weights keep their published names.
    """

    lora: LowRank

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = super()
        return layer.forward(x) + self.lora(x)


def attach(layer: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> LowRank:
    """Puts an empty LoRA beside one layer, which from then on adds its output; ``detach_`` takes it off."""
    held: Any = layer
    held.lora = LowRank(held, rank, alpha, dropout)
    held.lora.train(layer.training)
    kind = type(layer)
    held.__class__ = type(f"LoRA{kind.__name__}", (_Adapted, kind), {})
    return held.lora


def detach_(layer: nn.Module) -> None:
    """Takes the LoRA off a layer."""
    held: Any = layer
    held.__class__ = type(layer).__bases__[1]
    del held.lora


def lora_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module, LowRank]]:
    """(name, layer, its LoRA) of every layer that has one."""
    for name, module in network.named_modules():
        if isinstance(module, _Adapted):
            layer: Any = module
            yield name, layer, layer.lora
