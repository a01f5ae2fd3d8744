"""Segments of videos with their sound: 16 frames at 25 fps, and the 0.64 s that are heard with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.media.video import read_video
from mmaudio_core.spec.audio import AUDIO_16K
from mmaudio_core.spec.timing import SYNC_FPS, SYNC_SEGMENT_FRAMES, SYNC_SEGMENT_STRIDE, SYNC_TOKENS_PER_SEGMENT

from ..data.kept import Kept
from ..data.manifest import Row
from ..data.probe import SILENT_PEAK, probe
from ..data.usable import UselessError
from ..engine.generators import generator_of
from .rows import span

AUDIO = AUDIO_16K
"""The format whose log-mels the audio tower hears."""
FRAME_SAMPLES = round(AUDIO.sample_rate_hz / SYNC_FPS)
SEGMENT_SAMPLES = SYNC_SEGMENT_FRAMES * FRAME_SAMPLES
TOKEN_SAMPLES = SEGMENT_SAMPLES // SYNC_TOKENS_PER_SEGMENT
MARGIN_FRAMES = 6
MARGIN_SAMPLES = MARGIN_FRAMES * AUDIO.hop_samples
"""Sound on both sides: 1.5 frames that the analysis would reflect, and 4 that the audio tower sees beside a segment, which must
not show where a segment ends."""
PEAK = 0.95
"""The largest sample of a clip, whatever it was recorded at (arXiv 2412.15322, appendix)."""
LEAST_POWER = 1e-10
KEPT = 6
"""Distinguishes the draw of the segments that are kept of a clip."""
UNUSED_SIZE = 16
"""Pixels of a side of frames that nobody looks at."""


@dataclass(frozen=True)
class Segments:
    """Of one clip, G segments.

    clip: the number of its row. frames: uint8 (G, 16, 3, size, size). samples: float32 (G, N), with a margin on both sides.
    starts: int64 (G,), the first frames. quiet: bool (G, 8), whether nothing is heard in a token's 80 ms.
    """

    clip: int
    frames: Tensor
    samples: Tensor
    starts: Tensor
    quiet: Tensor


def bytes_of(segments: Segments) -> int:
    """Of memory, about."""
    return segments.frames.numel() + 4 * segments.samples.numel()


@dataclass(frozen=True)
class SegmentReader:
    """Rows to ``segments`` drawn segments of a clip, on the pipeline's grid of 8 frames from a drawn frame on.

    Whole clips are read and cut, since which frame stands for which instant depends on where the reading began. 0 segments
    are all that do not overlap, from the first frame on. kept: segments that are drawn of a clip once, of which each step's are
    drawn; 0 draws from the whole clip each time, which then is read each time. cache: holds what is kept.
    """

    size: int
    duration_s: float
    segments: int
    quiet_db: float
    kept: int = 0
    seed: int = 0
    cache: Kept[Segments] = field(default_factory=lambda: Kept(0, bytes_of))

    def __call__(self, number: int, row: Row, path: Path, generator: torch.Generator) -> Segments:
        """See ``Rows``.

        Raises:
            UselessError, MediaError: no pictures, no sound, silence, or too short.
        """
        if not self.kept or not self.segments:
            return self._read(number, row, path, self.segments, generator)
        own = generator_of(self.seed, KEPT, number)
        found = self.cache.get(number, lambda: self._read(number, row, path, self.kept, own))
        chosen = torch.randperm(self.kept, generator=generator)[: self.segments].sort().values
        return Segments(number, found.frames[chosen], found.samples[chosen], found.starts[chosen], found.quiet[chosen])

    def _read(self, number: int, row: Row, path: Path, segments: int, generator: torch.Generator) -> Segments:
        found = probe(path)
        if not found.has_video or not found.has_sound:
            raise UselessError("no sound" if found.has_video else "no video")
        start_s, wanted_s = span(row, self.duration_s)
        # CLIP's frames come with them, and cost least where they are small.
        size = self.size
        video = read_video(path, wanted_s, start_s=start_s, clip_size=UNUSED_SIZE, sync_size=size, hold_last=True, workers=0)
        frames = video.sync
        assert frames is not None
        samples = heard(path, start_s, len(frames))
        starts = self._starts(len(frames), segments, generator)
        power = samples.unfold(0, TOKEN_SAMPLES, TOKEN_SAMPLES).square().mean(-1)
        floor = max(LEAST_POWER, float(power.max()) * 10 ** (self.quiet_db / 10))
        padded = F.pad(samples, (MARGIN_SAMPLES, MARGIN_SAMPLES))
        pieces = [padded[s * FRAME_SAMPLES : s * FRAME_SAMPLES + SEGMENT_SAMPLES + 2 * MARGIN_SAMPLES] for s in starts.tolist()]
        cut = torch.stack(pieces)
        inner = cut[:, MARGIN_SAMPLES:-MARGIN_SAMPLES].unflatten(1, (SYNC_TOKENS_PER_SEGMENT, TOKEN_SAMPLES))
        pictures = torch.stack([frames[s : s + SYNC_SEGMENT_FRAMES] for s in starts.tolist()])
        return Segments(number, pictures, cut, starts, inner.square().mean(-1) < floor)

    def _starts(self, frames: int, segments: int, generator: torch.Generator) -> Tensor:
        if not segments:
            return torch.arange(0, frames - SYNC_SEGMENT_FRAMES + 1, SYNC_SEGMENT_FRAMES)
        spare = frames - SYNC_SEGMENT_FRAMES - (segments - 1) * SYNC_SEGMENT_STRIDE
        if spare < 0:
            raise UselessError("too short", f"{frames} frames at 25 a second do not hold {segments} segments.")
        first = int(torch.randint(min(spare + 1, SYNC_SEGMENT_STRIDE), (), generator=generator))
        places = (frames - SYNC_SEGMENT_FRAMES - first) // SYNC_SEGMENT_STRIDE + 1
        chosen = torch.randperm(places, generator=generator)[:segments].sort().values
        return first + SYNC_SEGMENT_STRIDE * chosen


def heard(path: Path, start_s: float, frames: int) -> Tensor:
    """float32 (N,), mono at 16 kHz, of the time of ``frames`` frames from ``start_s`` on, the largest sample 0.95.

    Raises:
        UselessError: when it is silent. MediaError: when it cannot be read.
    """
    sound = load_sound(path, AUDIO.sample_rate_hz).samples[0].mean(0)
    first, wanted = round(start_s * AUDIO.sample_rate_hz), frames * FRAME_SAMPLES
    samples = sound[first : first + wanted]
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    if not SILENT_PEAK <= peak < float("inf"):  # NaN too
        raise UselessError("silent")
    return F.pad(samples, (0, wanted - samples.numel())) * (PEAK / peak)
