"""Sampling that keeps what is known: repair, continuation and audio-to-audio."""

from __future__ import annotations

from torch import Tensor

from .guidance import Velocity


def keeping(velocity: Velocity, known: Tensor, noise: Tensor, regenerate: Tensor) -> Velocity:
    """``velocity`` where ``regenerate`` is 1; where it is 0 the state stays on the straight line from noise to ``known``.

    known, noise: (B, L, C) normalised; regenerate: (1 or B, L, 1) in [0, 1], fractions blend both. The network sees the kept
    part as noisy as the rest at every t, so that what it makes joins what is kept.
    """

    def blended(x: Tensor, t: Tensor) -> Tensor:
        line = (1 - t) * noise + t * known
        v = velocity(regenerate * x + (1 - regenerate) * line, t)
        return regenerate * v + (1 - regenerate) * (known - noise)

    return blended
