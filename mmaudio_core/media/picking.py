"""Which source frame stands for which instant (spec section 4, "Frame picking from a timed video").

Pure arithmetic on time stamps in seconds: nothing here knows of files, pixels or tensors. All of it is float64, and the
target of a stream grows by *adding* 1/fps, as the published program does: at 25 fps the sum differs from k/25 on most
frames, and with ``>=`` that decides which frame is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..spec.timing import CLIP_FPS, SYNC_FPS, clip_frames, sync_frames


@dataclass(frozen=True)
class Picks:
    """How often the frame just fed is taken by each stream; 0 for a stream that does not want it."""

    clip: int
    sync: int

    def __bool__(self) -> bool:
        return self.clip > 0 or self.sync > 0


@dataclass
class _Stream:
    step_s: float
    limit: int | None
    target_s: float = 0.0
    count: int = 0

    def take(self, stamp_s: float) -> int:
        """Times that a frame at ``stamp_s`` is taken; what lies beyond ``limit`` would be cut, so it is not counted."""
        before = self.count
        while not self.full and stamp_s >= self.target_s:
            self.count += 1
            self.target_s += self.step_s
        return self.count - before

    @property
    def full(self) -> bool:
        return self.limit is not None and self.count >= self.limit


@dataclass
class FramePicker:
    """The walk over a video's frames in display order, one :meth:`feed` per frame.

    duration_s: the asked duration; ``None`` walks to the end of the source, with nothing to cut.
    """

    duration_s: float | None
    done: bool = False
    _clip: _Stream = field(init=False, repr=False)
    _sync: _Stream = field(init=False, repr=False)

    def __post_init__(self) -> None:
        asked = self.duration_s
        self._clip = _Stream(1 / CLIP_FPS, None if asked is None else clip_frames(asked))
        self._sync = _Stream(1 / SYNC_FPS, None if asked is None else sync_frames(asked))

    @property
    def clip_count(self) -> int:
        """CLIP frames taken so far."""
        return self._clip.count

    @property
    def sync_count(self) -> int:
        """Sync frames taken so far."""
        return self._sync.count

    def feed(self, stamp_s: float) -> Picks:
        """What the two streams take of the frame at ``stamp_s`` seconds.

        Sets ``done`` at the first stamp beyond the asked duration (that frame is not taken; one exactly at it is), and
        also as soon as both lists are as long as they may become, since no later frame can change them.
        """
        if self.done or (self.duration_s is not None and stamp_s > self.duration_s):
            self.done = True
            return Picks(0, 0)
        if not math.isfinite(stamp_s):
            return Picks(0, 0)
        picks = Picks(self._clip.take(stamp_s), self._sync.take(stamp_s))
        self.done = self._clip.full and self._sync.full
        return picks


def settle_duration(asked_s: float, clip_count: int, sync_count: int) -> tuple[float, int, int]:
    """(duration in s, CLIP frames, sync frames) after the shortening rule of spec section 4.

    Too few CLIP frames shorten the duration to clip_count / 8; too few sync frames then to sync_count / 25 if that is
    less; both lists are cut anew to floor(8 d) and floor(25 d).
    """
    duration_s = float(asked_s)
    if clip_count < clip_frames(duration_s):
        duration_s = clip_count / CLIP_FPS
    if sync_count < sync_frames(duration_s):
        duration_s = min(duration_s, sync_count / SYNC_FPS)
    return duration_s, min(clip_count, clip_frames(duration_s)), min(sync_count, sync_frames(duration_s))


def pick_indices(stamps_s: Iterable[float], duration_s: float | None) -> tuple[list[int], list[int]]:
    """Indices into ``stamps_s`` that the CLIP and the sync list take, in order, repeats included."""
    picker = FramePicker(duration_s)
    clip: list[int] = []
    sync: list[int] = []
    for index, stamp_s in enumerate(stamps_s):
        picks = picker.feed(stamp_s)
        clip += [index] * picks.clip
        sync += [index] * picks.sync
        if picker.done:
            break
    return clip, sync
