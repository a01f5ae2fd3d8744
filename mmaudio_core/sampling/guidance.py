"""Classifier-free guidance (arXiv 2207.12598) over any velocity function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

C = TypeVar("C")
Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> dx/dt; x (B, L, C), t a scalar tensor on the CPU."""


def guided(network: Callable[[Tensor, Tensor, C], Tensor], conditions: C, empty: C | None, strength: float) -> Velocity:
    """s v(conditions) + (1 - s) v(empty); ``strength`` s <= 1 or no ``empty`` needs only the conditional pass.

    The blend keeps the latent's dtype, float32 in every run: s = 4.5 amplifies rounding more than fivefold (trap R4).
    """
    if strength <= 1 or empty is None:
        return lambda x, t: network(x, t, conditions)
    return lambda x, t: strength * network(x, t, conditions) + (1 - strength) * network(x, t, empty)
