"""A new sound together with the sound that a video already has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import InputError
from ..types import Audio
from .resample import resample

Combination: TypeAlias = Literal["replace", "keep", "mix", "duck"]
"""replace: the new sound alone; keep: the original alone; mix: their sum; duck: the sum, the original lower under the new."""
MAX_GAIN_DB = 100.0
ATTACK_S = 0.02
RELEASE_S = 0.25
_HOP_S = 0.01
_KNEE_DB = 6.0


@dataclass(frozen=True)
class Combined:
    """Combined sound, and by how many dB it was lowered as a whole to keep its peak at 1.0 (0.0: not at all, else < 0)."""

    audio: Audio
    scaled_db: float


def combine_sounds(
    new: Audio,
    original: Audio | None,
    duration_s: float,
    mode: Combination,
    new_gain_db: float = 0.0,
    original_gain_db: float = 0.0,
    duck_db: float = -12.0,
    threshold_db: float = -40.0,
) -> Combined:
    """Sounds (B, C, N) -> one float32 (B, C, round(duration_s * rate)) on the CPU; shorter ones end in silence.

    original: ``None`` where the video is silent: "mix" and "duck" then are "replace", and "keep" is silence in the new
        sound's rate and channels.
    duck_db: what "duck" adds to the original's gain where the new sound, after its own gain, is loud (``duck_envelope``).
    threshold_db: the level that counts as loud, in dB of RMS; an RMS of 1.0 is 0 dB.

    The rate is the higher one of the sounds heard, the channel count the larger one (mono goes to every channel at its own
    level). One original goes with a batch of new sounds, also under "keep". Gains mean 20 log10. A peak above 1.0 lowers
    the whole batch to 1.0 by one factor; otherwise a sound alone at 0 dB keeps its samples, bit for bit.

    Raises:
        InputError: an unknown mode, a duration or level out of range, samples that are no floats (B, C, N), NaN or infinite
            samples in what is heard, batches or channel counts that differ while neither is 1.
        DependencyError: the rates differ and torchaudio is missing.
    """
    if mode not in get_args(Combination):
        raise InputError(f"The mode is {mode!r}; use one of {', '.join(get_args(Combination))}.")
    _check_level("new_gain_db", new_gain_db, MAX_GAIN_DB)
    _check_level("original_gain_db", original_gain_db, MAX_GAIN_DB)
    _check_level("duck_db", duck_db, 0.0)
    _check_level("threshold_db", threshold_db, MAX_GAIN_DB)
    _check_form("new sound", new)
    if original is not None:
        _check_form("original sound", original)

    rate_hz = new.sample_rate_hz
    if mode == "keep" and original is None:
        silence = torch.zeros(*new.samples.shape[:2], _count(duration_s, rate_hz))
        return _unclipped(silence, rate_hz)
    if mode == "replace" or original is None:
        return _unclipped(_heard("new sound", new, rate_hz, duration_s, new_gain_db), rate_hz)
    batch = _common("clips", new.samples.shape[0], original.samples.shape[0])
    if mode == "keep":
        rate_hz = original.sample_rate_hz
        kept = _heard("original sound", original, rate_hz, duration_s, original_gain_db)
        return _unclipped(kept.repeat(batch // kept.shape[0], 1, 1), rate_hz)
    _common("channels", new.samples.shape[1], original.samples.shape[1])
    rate_hz = max(rate_hz, original.sample_rate_hz)
    above = _heard("new sound", new, rate_hz, duration_s, new_gain_db)
    below = _heard("original sound", original, rate_hz, duration_s, original_gain_db)
    if mode == "duck":
        below = below * torch.pow(10.0, duck_envelope(above, rate_hz, threshold_db)[:, None] * (duck_db / 20))
    return _unclipped(above + below, rate_hz)


def duck_envelope(samples: Tensor, rate_hz: int, threshold_db: float = -40.0) -> Tensor:
    """How far each instant of float (B, C, N) calls for ducking: float32 (B, N), from 0 (quiet) to 1 (loud), smooth.

    Loud is the RMS of 10 ms in the loudest channel, 0 at 6 dB below ``threshold_db`` and 1 at 6 dB above it. The rise takes
    20 ms and is over where the loud part begins; the fall begins where it ends and takes 250 ms.
    """
    batch, channels, count = samples.shape
    hop = max(1, round(rate_hz * _HOP_S))
    blocks = -(-count // hop)
    padded = samples.new_zeros(batch, channels, blocks * hop)
    padded[..., :count] = samples
    power = padded.reshape(batch, channels, blocks, hop).double().square().mean(-1).amax(1)
    level_db = 10 * power.clamp(min=1e-30).log10()
    loud = ((level_db - threshold_db) / (2 * _KNEE_DB) + 0.5).clamp(0, 1)
    # A block is as loud as said at both of its ends, so that the straight lines between instants never undercut it.
    edge = loud.new_zeros(batch, 1)
    instants = torch.maximum(torch.cat([loud, edge], 1), torch.cat([edge, loud], 1))
    # The lowest curve above all instants that rises and falls no faster than asked: two running maxima of slanted values.
    index = torch.arange(blocks + 1, dtype=instants.dtype)
    rise, fall = (index * (hop / rate_hz / seconds) for seconds in (ATTACK_S, RELEASE_S))
    before = (instants - rise).flip(1).cummax(1).values.flip(1) + rise
    after = (instants + fall).cummax(1).values - fall
    curve = torch.maximum(before, after).clamp(0, 1).float()
    along = torch.arange(hop, dtype=torch.float32) / hop
    line = torch.lerp(curve[:, :-1, None], curve[:, 1:, None], along).flatten(1)[:, :count]
    return line * line * (3 - 2 * line)  # no corners, the same ends


def _check_form(name: str, sound: Audio) -> None:
    samples, rate_hz = sound.samples, sound.sample_rate_hz
    if samples.ndim != 3 or 0 in samples.shape[:2] or not samples.is_floating_point():
        raise InputError(
            f"The {name} has the shape {tuple(samples.shape)} and type {samples.dtype}; "
            "floats of (batch, channels, samples) are needed."
        )
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, int) or rate_hz <= 0:
        raise InputError(f"The {name} has a sample rate of {rate_hz!r} Hz; a whole number above 0 is needed.")


def _check_level(name: str, level_db: float, most_db: float) -> None:
    if not math.isfinite(level_db) or level_db > most_db:
        raise InputError(f"{name} is {level_db}; give a finite number of dB, at most {most_db:g}.")


def _common(what: str, new: int, original: int) -> int:
    if new != original and 1 not in (new, original):
        raise InputError(f"The new sound has {new} {what} and the original {original}; make them equal, or one of them 1.")
    return max(new, original)


def _count(duration_s: float, rate_hz: int) -> int:
    if not math.isfinite(duration_s) or duration_s <= 0 or round(duration_s * rate_hz) < 1:
        raise InputError(f"A duration of {duration_s} s at {rate_hz} Hz was given; give a finite one of a sample or more.")
    return round(duration_s * rate_hz)


def _heard(name: str, sound: Audio, rate_hz: int, duration_s: float, gain_db: float) -> Tensor:
    """A copy at ``rate_hz`` with its gain, float32 (B, C, round(duration_s * rate_hz)), silence after its end."""
    count = _count(duration_s, rate_hz)
    # A second more than is heard: the rest of a long original need not be read or resampled.
    samples = sound.samples[..., : math.ceil((duration_s + 1) * sound.sample_rate_hz)].detach().cpu().float()
    if not bool(torch.isfinite(samples).all()):
        raise InputError(f"The {name} holds NaN or infinite samples; make or load it anew.")
    if samples.shape[-1] and sound.sample_rate_hz != rate_hz:
        samples = resample(samples, sound.sample_rate_hz, rate_hz)
    fitted = samples.new_zeros(*samples.shape[:2], count)
    fitted[..., : samples.shape[-1]] = samples[..., :count] * 10 ** (gain_db / 20)
    return fitted


def _unclipped(samples: Tensor, rate_hz: int) -> Combined:
    peak = samples.abs().amax()
    if peak <= 1.0:
        return Combined(Audio(samples, rate_hz), 0.0)
    return Combined(Audio(samples / peak, rate_hz), -20 * math.log10(float(peak)))
