"""Where in a sound something strikes: the times at which energy begins to climb.

Energy is looked at in bands, in decibels, so that a soft strike in one band is found while a loud one rings in another. Each
band is held against its loudest moment of the last 150 ms, so that neither noise, nor hum, nor the beating of a decay counts as
a rise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..media.resample import resample

ONSET_RATE_HZ = 22_050
"""The rate of the analysis (arXiv 2412.15322, appendix C)."""
SMALLEST_RISE_DB = 3.0
"""Mean over the bands from which on a rise is an onset."""
LEAST_GAP_S = 0.06
"""Of two rises nearer than this only the larger counts: reflections of a room are not strikes."""
_SILENCE = 1e-5
"""A sound whose largest sample is below, -100 dB, has no onsets."""
_BANDS, _LOWEST_HZ, _HIGHEST_HZ, _BEND_HZ = 16, 30.0, 10_500.0, 600.0
_SIZE, _HOP = 512, 110
"""Samples: 23 ms, every 5 ms."""
_FLOOR_DB = -50.0
"""Below the loudest frame; what is softer in a band is left out of account."""
_MARGIN_DB = 3.0
"""By so much noise exceeds its own recent maximum now and then."""
_NEAR_S, _FAR_S, _FORGET_DB_PER_S = 0.025, 0.15, 100.0
"""A frame is compared with those from ``_NEAR_S`` to ``_FAR_S`` before it, the older the more leniently."""
_FINE_SIZE, _FINE_HOP = 256, 16
_CLIMB = 0.1
"""Share of the whole rise in energy at which a sound has begun."""
_FINE_LEAD_S = 0.0024
"""By so much a window of ``_FINE_SIZE`` sees ``_CLIMB`` of a sudden sound before that begins."""


@dataclass(frozen=True)
class Onsets:
    """``times_s`` in order, and for each how far energy rises: ``strengths``, in dB, mean over the bands."""

    times_s: tuple[float, ...] = ()
    strengths: tuple[float, ...] = ()


class _Rise(NamedTuple):
    mean_db: Tensor  # (F,)
    by_band_db: Tensor  # (bands, F)
    before: Tensor  # (bands, F), energy


def detect_onsets(samples: Tensor, sample_rate_hz: int) -> Onsets:
    """The onsets of float samples (N,); a factor on the samples changes nothing.

    A sudden sound is placed to within about 3 ms, a slow one at a tenth of its rise in energy. What begins in the first 12 ms
    is not found, since nothing lies before it.

    Raises:
        InputError: for another shape, a rate of 0 or less, or samples that are not finite.
        DependencyError: when resampling is due and torchaudio is missing.
    """
    if samples.ndim != 1 or not torch.isfinite(samples).all():
        raise InputError(f"Samples of shape {tuple(samples.shape)} were given; finite mono samples (N,) are needed.")
    peak = float(samples.abs().max()) if len(samples) else 0.0
    if peak < _SILENCE:
        return Onsets()
    # In units of the peak, so that a factor changes nothing.
    x = resample(samples.detach().cpu().double() / peak, sample_rate_hz, ONSET_RATE_HZ)
    if len(x) < 2 * _SIZE:
        return Onsets()
    rise = _rises(_band_energies(x, _SIZE, _HOP))
    fine = _band_energies(x, _FINE_SIZE, _FINE_HOP)
    found = sorted((_begin_s(fine, rise, frame), float(rise.mean_db[frame])) for frame in _peaks(rise.mean_db))
    return Onsets(tuple(time_s for time_s, _ in found), tuple(strength for _, strength in found))


def _band_energies(x: Tensor, size: int, hop: int) -> Tensor:
    """(bands, F): energy in each band around the samples 0, hop, 2 hop, ...

    Windows that reach beyond an end take the nearest whole one's: whatever stood in for the missing samples could be a rise.
    """
    window = torch.hann_window(size, dtype=x.dtype)
    # Frame k of the padded signal has its middle at sample k * hop.
    padded = torch.nn.functional.pad(x, (size // 2, size // 2))
    power = torch.stft(padded, size, hop, size, window, center=False, return_complex=True).abs().square()
    hz = torch.arange(size // 2 + 1) * (ONSET_RATE_HZ / size)
    low_end, high_end = (math.asinh(end / _BEND_HZ) for end in (_LOWEST_HZ, _HIGHEST_HZ))
    edges = _BEND_HZ * torch.sinh(torch.linspace(low_end, high_end, _BANDS + 1, dtype=x.dtype))
    # A bin belongs to a band by the share of its width that lies in it, so that narrow bands are not empty.
    half = ONSET_RATE_HZ / size / 2
    low, high = torch.maximum(edges[:-1, None], hz - half), torch.minimum(edges[1:, None], hz + half)
    energies = ((high - low).clamp(min=0) / (2 * half)) @ power / window.square().sum()
    first, last = -(-size // 2 // hop), (len(x) - size // 2) // hop
    place = torch.arange(energies.shape[1]).clamp(first, max(first, last))
    return energies[:, place]


def _rises(energies: Tensor) -> _Rise:
    """How far each band lies above its recent past, frame by frame."""
    floor = energies.sum(0).max() * 10 ** (_FLOOR_DB / 10)
    level = 10 * torch.log10(energies + floor)
    near, far = (round(s * ONSET_RATE_HZ / _HOP) for s in (_NEAR_S, _FAR_S))
    before = torch.full_like(level, -math.inf)
    for lag in range(near, far + 1):
        older = torch.cat((level[:, :1].expand(-1, min(lag, level.shape[1])), level[:, :-lag]), 1)
        before = torch.maximum(before, older - _FORGET_DB_PER_S * (lag - near) * _HOP / ONSET_RATE_HZ)
    by_band = (level - before - _MARGIN_DB).clamp(min=0)
    return _Rise(by_band.mean(0), by_band, 10 ** (before / 10))


def _peaks(rise_db: Tensor) -> list[int]:
    """Frames of the largest rises, none nearer than ``LEAST_GAP_S`` to a larger one."""
    gap = round(LEAST_GAP_S * ONSET_RATE_HZ / _HOP)
    chosen: list[int] = []
    values = rise_db.tolist()
    for frame in sorted(range(len(values)), key=lambda k: (-values[k], k)):
        if values[frame] < SMALLEST_RISE_DB:
            break
        # The flank of a larger rise is no peak of its own, however far it reaches.
        around = values[max(0, frame - 1) : frame + 2]
        if values[frame] == max(around) and all(abs(frame - other) >= gap for other in chosen):
            chosen.append(frame)
    return chosen


def _begin_s(fine: Tensor, rise: _Rise, frame: int) -> float:
    """The time at which the energy that peaks around ``frame`` begins to climb, from energies every 0.7 ms."""
    middle, step_s = frame * _HOP / ONSET_RATE_HZ, _FINE_HOP / ONSET_RATE_HZ
    first = max(0, round((middle - _NEAR_S - 0.02) / step_s))
    last = min(fine.shape[1], round((middle + 0.015) / step_s))
    # Each band in units of what was there before, those that rise most counting most.
    weights = rise.by_band_db[:, frame] / rise.before[:, frame]
    energy = (weights[:, None] * fine[:, first:last]).sum(0)
    top = int(energy.argmax())
    base = float(energy[: top + 1].min())
    wanted = base + _CLIMB * (float(energy[top]) - base)
    below = (energy[: top + 1] < wanted).nonzero()
    if not len(below):
        return (first + top) * step_s
    last_below = int(below[-1])
    before, after = float(energy[last_below]), float(energy[min(last_below + 1, top)])
    share = (wanted - before) / (after - before) if after > before else 0.0
    return (first + last_below + share) * step_s + _FINE_LEAD_S
