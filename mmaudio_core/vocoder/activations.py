"""SnakeBeta between two rate changes, so that the harmonics it makes do not alias (arXiv 2206.04658, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .filters import TAPS, kaiser_sinc

BETA_FLOOR = 1e-9


class SnakeBeta(nn.Module):
    """x + sin^2(e^alpha x) / (e^beta + 1e-9), per channel; (B, C, time) -> (B, C, time).

    Computed in float32 in half precision runs too: e^beta underflows in float16, and rounding the sine's argument is what
    makes a bfloat16 vocoder hiss.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.float().exp()[:, None], self.beta.float().exp()[:, None]
        wide = x.float()
        return (wide + torch.sin(wide * alpha).square() / (beta + BETA_FLOOR)).to(x.dtype)


class AntiAliasedSnake(nn.Module):
    """``SnakeBeta`` evaluated at twice the rate; (B, C, time) -> (B, C, time).

    The filter is computed, not loaded: published files carry a copy in every activation.
    """

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        # Held off the meta device: it is not in the state dictionary, so loading would never fill it.
        with torch.device("cpu"):
            self.register_buffer("filter", kaiser_sinc(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        taps = self.filter.to(x.dtype).expand(channels, 1, TAPS)
        up = F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), 2 * taps, stride=2, groups=channels)[..., 15:-15]
        active = self.act(up)
        return F.conv1d(F.pad(active, (5, 6), mode="replicate"), taps, stride=2, groups=channels)
