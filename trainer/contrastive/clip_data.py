"""Frames of videos with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.errors import MediaError
from mmaudio_core.media.opening import decode_tolerantly, open_media, pick_video_stream
from mmaudio_core.media.resize import clip_frame
from mmaudio_core.media.rgb import RgbConverter, frame_pixels
from mmaudio_core.media.rotation import MatrixReader
from mmaudio_core.media.shown import ShownFrames
from mmaudio_core.media.stamps import file_times

from ..data.kept import Kept
from ..data.manifest import Row
from ..data.probe import probe
from ..data.usable import UselessError
from ..engine.generators import generator_of
from .rows import span

KEPT = 4
"""Distinguishes the draw of the frames that are kept of a clip."""


@dataclass(frozen=True)
class Captioned:
    """frames: uint8 (V, 3, size, size), in order of time."""

    frames: Tensor
    caption: str


class FrameReader:
    """Rows to ``frames`` of the ``kept`` frames of a clip, which are drawn once, one from each of as many equal parts.

    Videos are read once where ``cache_bytes`` of memory hold what is kept of all, the least recently used going first.
    """

    def __init__(self, size: int, duration_s: float, kept: int, frames: int, seed: int, cache_bytes: int) -> None:
        self.size, self.duration_s, self.kept, self.frames, self.seed = size, duration_s, kept, frames, seed
        self._cache: Kept[Tensor] = Kept(cache_bytes, torch.Tensor.numel)

    def __call__(self, number: int, row: Row, path: Path, generator: torch.Generator) -> Captioned:
        """See ``Rows``.

        Raises:
            UselessError, MediaError: no caption, no pictures, or too few.
        """
        if not row.caption:
            raise UselessError("no caption")
        kept = self._cache.get(number, lambda: self._decoded(number, row, path))
        chosen = torch.randperm(len(kept), generator=generator)[: self.frames].sort().values
        return Captioned(kept[chosen], row.caption)

    def _decoded(self, number: int, row: Row, path: Path) -> Tensor:
        found = probe(path)
        if not found.has_video:
            raise UselessError("no video")
        start_s, wanted_s = span(row, self.duration_s)
        if found.video_s is not None:
            wanted_s = min(wanted_s, found.video_s - start_s)
        if wanted_s <= 0:
            raise UselessError("too short", f"It ends before {start_s:g} s, where the row begins.")
        within = torch.rand(self.kept, generator=generator_of(self.seed, KEPT, number))
        times_s = start_s + (torch.arange(self.kept) + within) * (wanted_s / self.kept)
        return frames_at(path, times_s.tolist(), self.size)


def frames_at(path: Path, times_s: Sequence[float], size: int) -> Tensor:
    """uint8 (V, 3, size, size), the first frame from each of the rising ``times_s`` on, the last one where none comes.

    Decodes all up to the last one, and converts what is wanted alone, which is most of the cost.

    Raises:
        MediaError: no readable video.
    """
    wanted, last, taken = list(times_s), None, []
    times = file_times(path)
    with open_media(path) as container:
        stream = pick_video_stream(container, path.name)
        shown = ShownFrames(decode_tolerantly(container, stream), stream, times)
        matrices, to_rgb = MatrixReader(), RgbConverter()

        def pixels(frame: Any) -> Tensor:
            return clip_frame(frame_pixels(frame, matrices.read(frame), to_rgb)[None], size)[0]

        for last, stamp_s in shown:
            count = sum(time_s <= stamp_s for time_s in wanted)
            if count:
                taken += [pixels(last)] * count
                wanted = wanted[count:]
            if not wanted:
                break
        if last is None:
            raise MediaError(f"{path.name} has a video track but no frame of it can be decoded.")
        if wanted:
            taken += [pixels(last)] * len(wanted)
    return torch.stack(taken)
