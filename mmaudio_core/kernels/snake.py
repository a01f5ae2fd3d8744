"""Anti-aliased SnakeBeta of BigVGAN (arXiv 2206.04658, section 3.2) in polyphase form: no zeros are stuffed or multiplied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError

TAPS = 12


def anti_aliased_snake(x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> Tensor:
    """SnakeBeta at twice the rate between two low-pass filters f = ``taps``; (B, C, T) -> (B, C, T).

    u[2n] = 2 sum_s f[2s + 1] x[n + 2 - s] and u[2n + 1] = 2 sum_s f[2s] x[n + 3 - s] over s = 0..5;
    a = u + inverse_beta sin^2(alpha u); y[n] = sum_t f[t] a[2n + t - 5] over t = 0..11. Before its first sample a signal
    has that sample's value, x as well as a, and likewise after its last. Computed in float32, rounded once.

    Args:
        x: (B, C, T), in channel-first or time-major memory; the output has the same.
        alpha: (C,), exp of the stored parameter.
        inverse_beta: (C,), 1 / (exp of the stored parameter + 1e-9).
        taps: (12,).

    Raises:
        InputError: when the shapes do not fit together.
    """
    check_snake(x, alpha, inverse_beta, taps)
    wide = x if x.dtype == torch.float64 else x.float()
    samples = x.shape[2]
    f = taps.to(wide).unbind()
    padded = torch.cat((wide[..., :1].expand(-1, -1, 3), wide, wide[..., -1:].expand(-1, -1, 3)), dim=2)
    even, odd = (_weighted([2 * tap for tap in reversed(f[1 - phase :: 2])], padded[..., phase:], samples) for phase in (0, 1))
    slope, height = alpha.to(wide)[:, None], inverse_beta.to(wide)[:, None]
    even, odd = (u + height * torch.sin(slope * u).square() for u in (even, odd))
    before, after = even[..., :1].expand(-1, -1, 3), odd[..., -1:].expand(-1, -1, 3)
    y = _weighted(f[0::2], torch.cat((before, odd, after), dim=2), samples)
    y = y + _weighted(f[1::2], torch.cat((before[..., 1:], even, after), dim=2), samples)
    return torch.empty_like(x).copy_(y)


def _weighted(weights: Sequence[Tensor], x: Tensor, samples: int) -> Tensor:
    """sum_i weights[i] x[n + i] for n < ``samples``."""
    total = weights[0] * x[..., :samples]
    for i, weight in enumerate(weights[1:], start=1):
        total = torch.addcmul(total, weight, x[..., i : i + samples])
    return total


def check_snake(x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> None:
    """Refuses what ``anti_aliased_snake`` is not defined for."""
    shapes = [tuple(t.shape) for t in (x, alpha, inverse_beta, taps)]
    if x.ndim != 3 or x.shape[2] == 0 or shapes[1:] != [(x.shape[1],), (x.shape[1],), (TAPS,)]:
        raise InputError(
            f"anti_aliased_snake was given x, alpha, inverse_beta and taps of shapes {shapes}; it needs (B, C, T) of at "
            f"least one sample, (C,), (C,) and ({TAPS},)."
        )
    if not x.is_floating_point():
        raise InputError(f"anti_aliased_snake was given {x.dtype}; it needs a floating-point tensor.")
