"""The sound of one strike: damped modes of a material, and the noise of the contact."""

from __future__ import annotations

import numpy as np

from .materials import Material
from .noise import shaped_noise

LONGEST_S = 2.5
FALL = np.log(1000.0)
"""60 dB, in natural units."""


def strike(m: Material, smallness: float, strength: float, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Samples (N,) float64 from contact on, its level in proportion to ``strength``; hard strikes ring brighter.

    smallness: 0 for the largest thing, 1 for the smallest, which sets the pitch.
    """
    lowest = m.low_hz * (m.high_hz / m.low_hz) ** smallness * (1 + 0.01 * rng.standard_normal())
    length = round(min(LONGEST_S, 1.1 * m.decay_s) * rate_hz)
    time_s = np.arange(length) / rate_hz
    out = np.zeros(length)
    for k, ratio in enumerate(m.ratios):
        hz = lowest * ratio * (1 + 0.004 * rng.standard_normal())
        level = strength ** (1 + 0.25 * k) * ratio**-0.5 * rng.uniform(0.6, 1.0)
        if hz >= 0.45 * rate_hz:
            continue
        envelope = np.exp(-FALL * time_s * ratio**m.damping / m.decay_s)
        pitch = 1 + m.rise * time_s / m.decay_s
        out += level * envelope * np.sin(2 * np.pi * hz * time_s * (1 + (pitch - 1) / 2) + 0.3 * rng.standard_normal())
    noise = shaped_noise(length, rate_hz, 40.0, m.noise_hz, 0.0, rng)
    noise *= np.exp(-FALL * time_s / (4 * m.noise_decay_s))
    out = out / len(m.ratios) ** 0.5 + 1.6 * m.noise * strength * noise
    # Contact lasts about a millisecond, so nothing begins with a jump.
    ramp = max(1, round(0.0008 * rate_hz))
    out[:ramp] *= np.linspace(0, 1, ramp, endpoint=False)
    out[-ramp:] *= np.linspace(1, 0, ramp)
    return out
