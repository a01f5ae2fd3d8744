"""Noise with a spectrum, and what a room adds."""

from __future__ import annotations

import numpy as np


def shaped_noise(
    length: int, rate_hz: int, low_hz: float, high_hz: float, slope_db: float, rng: np.random.Generator
) -> np.ndarray:
    """(N,) float64 Gaussian noise of unit variance between two frequencies, with ``slope_db`` per octave, soft at both ends."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / rate_hz)
    hz[0] = hz[1] if length > 1 else 1.0
    high_hz = min(high_hz, 0.49 * rate_hz)
    gain = (hz / low_hz) ** (slope_db / 6.02) / np.sqrt(1 + (low_hz / hz) ** 4) / np.sqrt(1 + (hz / high_hz) ** 8)
    out = np.fft.irfft(spectrum * gain, length)
    return np.asarray(out / max(float(out.std()), 1e-12))


def in_room(dry: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """The sound with a few early reflections and a decaying tail; as long as before. The direct sound stays where it is."""
    decay_s = float(rng.uniform(0.12, 0.5))
    level = 10 ** (float(rng.uniform(-34, -22)) / 20)
    length = round(decay_s * rate_hz)
    time_s = np.arange(length) / rate_hz
    tail = shaped_noise(length, rate_hz, 80.0, 5000.0, -1.5, rng) * np.exp(-np.log(1000.0) * time_s / decay_s)
    tail[: round(0.008 * rate_hz)] = 0
    tail *= level / max(float(np.abs(tail).max()), 1e-12)
    tail[0] = 1.0
    for _ in range(4):
        tail[int(rng.integers(round(0.004 * rate_hz), round(0.03 * rate_hz)))] += float(rng.uniform(0.04, 0.14))
    size = 1 << (len(dry) + length - 1).bit_length()
    return np.asarray(np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(tail, size), size)[: len(dry)])
