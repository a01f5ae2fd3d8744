"""The frame-picking walk with pixels: stamps in, resized CLIP and sync frames out. Shared by files and tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import MediaError
from ..spec.timing import MIN_DURATION_S, clip_frames, sync_frames
from ..types import VideoFrames
from .device_resize import DeviceResizer
from .in_order import InOrder, default_workers
from .picking import FramePicker, Picks, settle_duration
from .resize import CLIP_SIZE, SYNC_SIZE, clip_frame, sync_frame

Progress = Callable[[int, int], None]
"""Called with (frames collected so far, frames expected); expected is 0 while unknown."""


_AT_FIRST_S, _AT_MOST_S = 30.0, 600.0
"""Seconds for which room is asked for at once: where the source does not say how much it covers, and where it does."""


class FrameBuffer:
    """A growing uint8 (frames, 3, size, size) buffer, so that no list of frames has to be copied into one at the end."""

    def __init__(self, size: int, capacity: int) -> None:
        self._size = size
        self._data = torch.empty((max(capacity, 1), 3, size, size), dtype=torch.uint8)
        self._used = 0

    @property
    def used(self) -> int:
        """Frames so far."""
        return self._used

    def append(self, frame: Tensor, times: int) -> None:
        """Adds one uint8 (3, size, size) frame ``times`` times."""
        needed = self._used + times
        if needed > self._data.shape[0]:
            larger = torch.empty((max(needed, self._data.shape[0] * 3 // 2), 3, self._size, self._size), dtype=torch.uint8)
            larger[: self._used] = self._data[: self._used]
            self._data = larger
        # numpy, because torch's copy out of the resizer's interleaved layout is many times slower.
        self._data.numpy()[self._used : needed] = frame.numpy()
        self._used = needed

    def take(self, count: int) -> Tensor:
        """The first ``count`` frames, owning hardly more memory than they need."""
        frames = self._data[:count]
        return frames if self._data.shape[0] <= count * 9 // 8 else frames.clone()


class _Resized(NamedTuple):
    picks: Picks
    clip: Tensor | None
    sync: Tensor | None


class FrameCollector:
    """Feeds stamps to the picker and keeps what it takes, resized soon, so that memory holds few source frames.

    A context manager: its threads end with it.

    asked_s: the asked duration, or ``None`` for the whole source.
    expected_s: what the source says that it covers, for which room is asked for at once; wrong is as good as unknown.
    progress: called in the caller's thread.
    workers: threads that make pixels and resize them; ``None`` goes by the processors, 0 does it in the caller's thread.
    device: where frames are resized; ``None`` is the CPU. Bit for bit the same everywhere.
    most_s: seconds for whose frames there is memory.
    """

    def __init__(
        self,
        asked_s: float | None,
        clip_size: int = CLIP_SIZE,
        sync_size: int = SYNC_SIZE,
        progress: Progress | None = None,
        *,
        expected_s: float | None = None,
        workers: int | None = None,
        device: torch.device | str | None = None,
        most_s: float = math.inf,
    ) -> None:
        self._picker = FramePicker(asked_s)
        self._asked_s, self._most_s = asked_s, most_s
        self._clip_size, self._sync_size = clip_size, sync_size
        clip_total = 0 if asked_s is None else clip_frames(asked_s)
        sync_total = 0 if asked_s is None else sync_frames(asked_s)
        # Memory of torch.empty is only claimed when written to, so a generous request for a short video costs nothing.
        first_s = _AT_FIRST_S if expected_s is None else min(expected_s + 1, _AT_MOST_S)
        most_s = first_s if asked_s is None else min(asked_s, first_s)
        self._clip = FrameBuffer(clip_size, clip_frames(most_s))
        self._sync = FrameBuffer(sync_size, sync_frames(most_s))
        self._total = clip_total + sync_total
        self._progress = progress
        resizer = None if device is None or torch.device(device).type == "cpu" else DeviceResizer(device)
        self._to_clip = clip_frame if resizer is None else resizer.clip_frame
        self._to_sync = sync_frame if resizer is None else resizer.sync_frame
        self._jobs = InOrder(self._keep, default_workers() if workers is None else workers)

    def __enter__(self) -> FrameCollector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._jobs.__exit__(kind, error, trace)

    @property
    def done(self) -> bool:
        """Whether no later frame can change the result."""
        return self._picker.done

    @property
    def empty(self) -> bool:
        """Whether no frame has been taken yet."""
        return self._picker.clip_count == 0 and self._picker.sync_count == 0

    def feed(self, stamp_s: float, pixels: Callable[[], Tensor], *, at_once: bool = False) -> None:
        """One frame in display order; ``pixels`` gives it as uint8 (3, H, W) and is called only if it is taken.

        at_once: ``pixels`` is called before this returns, and only resizing may come later.

        Raises:
            MediaError: more frames than there is memory for.
        """
        if stamp_s > self._most_s and (self._asked_s is None or self._asked_s > self._most_s):
            raise MediaError(
                f"A frame is shown at {stamp_s:.0f} s, and there is memory for the frames of {self._most_s:.0f} s. Ask for a "
                "shorter duration; with other starts a long video can be done part by part."
            )
        picks = self._picker.feed(stamp_s)
        if not picks:
            return
        if at_once:
            frame = pixels()
            self._jobs.submit(lambda: self._resize(frame, picks))
        else:
            self._jobs.submit(lambda: self._resize(pixels(), picks))

    def hold(self, end_s: float, pixels: Callable[[], Tensor]) -> None:
        """Lets the last frame, given by ``pixels``, stay until ``end_s``; the source then covers no more than that."""
        if self.done:
            return
        self._jobs.drain()  # the last frame may be at work, and PyAV's frames bear one thread at a time
        if self._asked_s is not None:
            self._asked_s = end_s = min(self._asked_s, end_s)  # a stamp beyond it would end the walk without the frame
        self.feed(end_s, pixels)

    def finish(self, covered_s: float, source: str) -> VideoFrames:
        """The collected frames, the duration shortened by spec section 4 where the source ended early.

        covered_s: how much the source covers; it stands for the duration where none was asked.

        Raises:
            MediaError: when what is left is shorter than 0.64 s.
        """
        self._jobs.drain()
        asked_s = covered_s if self._asked_s is None else self._asked_s
        duration_s, clip_count, sync_count = settle_duration(asked_s, self._picker.clip_count, self._picker.sync_count)
        if duration_s < MIN_DURATION_S:
            raise MediaError(
                f"{source} is too short: its frames cover {max(covered_s, 0.0):.2f} s here, and at least "
                f"{MIN_DURATION_S:g} s are needed. Use a longer video."
            )
        return VideoFrames(self._clip.take(clip_count), self._sync.take(sync_count), duration_s, source)

    def _resize(self, frame: Tensor, picks: Picks) -> _Resized:
        batch = frame.unsqueeze(0)
        return _Resized(
            picks,
            self._to_clip(batch, self._clip_size)[0] if picks.clip else None,
            self._to_sync(batch, self._sync_size)[0] if picks.sync else None,
        )

    def _keep(self, resized: _Resized) -> None:
        if resized.clip is not None:
            self._clip.append(resized.clip, resized.picks.clip)
        if resized.sync is not None:
            self._sync.append(resized.sync, resized.picks.sync)
        if self._progress is not None:
            self._progress(self._clip.used + self._sync.used, self._total)
