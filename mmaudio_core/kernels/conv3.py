"""Convolution of three taps over time on channel-last tensors, its weight laid out for one matrix product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def conv3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv 3 with a row of zeros before and after each clip: (B, L, C) -> (B, L, O).

    Args:
        x: (B, L, C).
        weight: (O, 3 C), of ``x``'s dtype: ``weight[o, tap * C + c]`` is a Conv1d's ``weight[o, c, tap]``
            (``pack_taps`` makes it).
        bias: (O,), of ``x``'s dtype, or None.

    Raises:
        InputError: when the shapes or dtypes do not fit together.
    """
    check_conv3(x, weight, bias)
    padded = F.pad(x, (0, 0, 1, 1))
    return F.linear(torch.cat((padded[:, :-2], x, padded[:, 2:]), dim=-1), weight, bias)


def pack_taps(weight: Tensor) -> Tensor:
    """A Conv1d's weight (O, C, 3) as ``conv3`` takes it, (O, 3 C).

    Raises:
        InputError: when there are not three taps.
    """
    if weight.ndim != 3 or weight.shape[2] != 3:
        raise InputError(f"conv3 was given a weight of shape {tuple(weight.shape)}; it needs (channels out, channels in, 3).")
    return weight.transpose(1, 2).flatten(1).contiguous()


def check_conv3(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuses what ``conv3`` is not defined for."""
    fits = x.ndim == 3 and weight.ndim == 2 and weight.shape[1] == 3 * x.shape[2]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        raise InputError(
            f"conv3 was given x {tuple(x.shape)}, weight {tuple(weight.shape)} and bias "
            f"{None if bias is None else tuple(bias.shape)}; it needs (B, L, C), (O, 3 C) and (O,)."
        )
    dtypes = [t.dtype for t in (x, weight, bias) if t is not None]
    if len(set(dtypes)) > 1 or not x.is_floating_point():
        raise InputError(f"conv3 was given dtypes {dtypes}; it needs one floating-point dtype for all.")
