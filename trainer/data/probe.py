"""What a media file holds: by its header, or by decoding its sound."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmaudio_core.media.opening import open_media, picture_streams
from mmaudio_core.media.sound_blocks import decode_sound

from .crops import Crop, Kind

SILENT_PEAK = 1e-3
"""A sound whose largest sample is below this (-60 dB) is silence."""
STEPS_PER_S = 10
_SOUND_MAY_END_EARLY_S = 0.1
"""Sound ends with a whole packet, up to 46 ms beside the pictures; a clip cut to 8 s must not fail for that."""


@dataclass(frozen=True)
class Probe:
    """What a header says.

    sound_s, video_s: seconds of the first tracks; ``None`` where there is no such track or the header does not say.
    """

    has_sound: bool
    has_video: bool
    sound_s: float | None
    video_s: float | None

    @property
    def kind(self) -> Kind:
        return "av" if self.has_video else "at"

    @property
    def duration_s(self) -> float | None:
        """Seconds that can be trained on; ``None`` where the header does not say."""
        if not self.has_video:
            return self.sound_s
        if self.video_s is None or self.sound_s is None:
            return self.video_s
        return min(self.video_s, self.sound_s + _SOUND_MAY_END_EARLY_S)


@dataclass(frozen=True)
class Loudness:
    """A decoded sound track: its length, and the largest sample of all channels in each step of 1 / ``STEPS_PER_S`` s.

    peaks: float32 (steps,).
    """

    duration_s: float
    peaks: np.ndarray

    def peak(self, crop: Crop) -> float:
        """The largest sample of ``crop``, to the step; 0 where it lies beyond the end."""
        first = int(crop.start_s * STEPS_PER_S)
        steps = self.peaks[first : max(first + 1, round((crop.start_s + crop.duration_s) * STEPS_PER_S))]
        return float(steps.max()) if steps.size else 0.0


def probe(path: str | os.PathLike[str]) -> Probe:
    """Reads no more than the header.

    Raises:
        MediaError: not a readable media file.
        DependencyError: PyAV is missing.
    """
    with open_media(path, "media") as container:
        sounds, pictures = list(container.streams.audio), picture_streams(container)
        return Probe(
            has_sound=bool(sounds),
            has_video=bool(pictures),
            sound_s=_stated_s(container, sounds[0]) if sounds else None,
            video_s=_stated_s(container, pictures[0]) if pictures else None,
        )


def measure(path: str | os.PathLike[str]) -> Loudness:
    """Decodes the whole first sound track, holding about a second of it at a time.

    Raises:
        MediaError: not a readable file with sound, or no sample of it decodes.
        DependencyError: PyAV is missing.
    """
    peaks: list[float] = []
    pending: list[np.ndarray] = []
    count, held, rate_hz = 0, 0, 1
    with open_media(path, "audio") as container:
        for block in decode_sound(container, Path(path).name):
            rate_hz = block.sample_rate_hz
            pending.append(np.abs(np.nan_to_num(block.samples)).max(axis=0))
            held += block.samples.shape[1]
            if held >= rate_hz:  # blocks are short, and the rest costs as much for one of them as for a second
                _add_peaks(peaks, np.concatenate(pending), count, rate_hz)
                count, held, pending = count + held, 0, []
    if pending:
        _add_peaks(peaks, np.concatenate(pending), count, rate_hz)
    return Loudness((count + held) / rate_hz, np.asarray(peaks, np.float32))


def _add_peaks(peaks: list[float], magnitudes: np.ndarray, before: int, rate_hz: int) -> None:
    """Enters magnitudes (n,), with ``before`` samples ahead of them, into the steps' peaks."""
    steps = range(before * STEPS_PER_S // rate_hz, (before + magnitudes.size - 1) * STEPS_PER_S // rate_hz + 1)
    edges = [max(0, -(-step * rate_hz // STEPS_PER_S) - before) for step in steps]
    peaks.extend([0.0] * (steps.stop - len(peaks)))
    for step, peak in zip(steps, np.maximum.reduceat(magnitudes, edges), strict=True):
        peaks[step] = max(peaks[step], float(peak))


def _stated_s(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None
