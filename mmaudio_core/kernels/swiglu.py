"""The gate of SwiGLU (arXiv 2002.05202) on the output of one joint projection: the reference."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .adaln import widened


def swiglu(packed: Tensor) -> Tensor:
    """silu(packed[..., :I]) * packed[..., I:].

    packed: (..., 2 I), any strides. Returns (..., I) in its dtype; computed in float32, or float64 if it is that, rounded once.

    Raises:
        InputError: when the last axis cannot be halved.
    """
    check_halves(packed)
    gate, value = packed.chunk(2, dim=-1)
    return (F.silu(widened(gate)) * widened(value)).to(packed.dtype)


def check_halves(packed: Tensor) -> None:
    """Refuses an odd last axis.

    Raises:
        InputError: when ``packed`` has no axis, or its last one is odd.
    """
    if packed.ndim == 0 or packed.shape[-1] % 2:
        raise InputError(f"packed has shape {tuple(packed.shape)}; its last axis holds two halves and must be even.")
