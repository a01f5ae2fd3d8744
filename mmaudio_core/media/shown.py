"""Decoded frames with the times at which they are shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

from .clock import placed
from .stamps import FileTimes, frame_step

log = logging.getLogger("mmaudio")

_BEGINNING = Fraction(0)


class ShownFrames:
    """The decoded ``frames`` of ``stream``, in display order, each with float seconds from ``start`` seconds of the video on.

    An honest stamp gives float((pts * time_base) - offset), from exact fractions.
    """

    def __init__(self, frames: Iterator[Any], stream: Any, times: FileTimes, start: Fraction = _BEGINNING) -> None:
        self._clock = times.clock(frame_step(stream))
        self._times, self._offset = times, times.start + start
        self._frames = frames
        self.lead: Fraction | None = None
        """Seconds by which pictures are decoded before they are shown, where the file stores only an order of decoding."""
        self._saw_pts = False
        self._last: Any = None

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        frames = self._frames
        if self._times.order_gap is not None:
            first = next(frames, None)
            if first is None:
                return
            if first.pts is not None and first.dts is not None:
                self.lead = _time(first, "dts") - (_time(first, "pts") - self._times.order_gap)
            frames = chain([first], frames)
        for frame, at in placed(frames, self._stamp, lambda frame: self._clock):
            self._last = frame
            yield frame, float(at - self._offset)

    @property
    def end_s(self) -> float:
        """Where the last frame so far ends, in seconds."""
        last = self._clock.last
        return 0.0 if last is None else float(last + self._length(last) - self._offset)

    def tell(self, name: str, covered_s: float) -> None:
        """Warns where the file's stamps were not followed before ``covered_s``."""
        if not self._times.stored:
            log.warning(
                "%s stores no time stamps; its pictures are taken at %.5g per second. If that is wrong, convert it to .mp4 "
                "with the right rate first.",
                name,
                float(1 / self._clock.step),
            )
        elif self._clock.shifts:
            log.warning(
                "The time stamps of %s jump (%d places in the %.2f s that were read); its pictures are taken as going on "
                "without a break there. Other programs may show it with another length.",
                name,
                len(self._clock.shifts),
                covered_s,
            )

    def _stamp(self, frame: Any) -> Fraction | None:
        if self.lead is not None:
            return None if frame.dts is None else _time(frame, "dts") - self.lead
        if frame.pts is not None:
            self._saw_pts = True
            return _time(frame, "pts")
        return None if frame.dts is None or self._saw_pts else _time(frame, "dts")

    def _length(self, last: Fraction) -> Fraction:
        """Seconds that the frame at ``last`` is shown: until the stated end where that is later than frames usually last."""
        # Where only an order is stored, what goes for a length is as little meant.
        ticks = 0 if self.lead is not None else getattr(self._last, "duration", None) or 0
        base = self._last.time_base
        length = ticks * Fraction(base) if base and ticks > 0 else self._clock.step
        tail_end = self._times.tail_end
        if tail_end is not None and not self._clock.shifts:
            tail = tail_end - last
            return tail if tail > self._clock.usual or length > self._clock.usual >= tail > 0 else length
        return length


def _time(frame: Any, kind: str) -> Fraction:
    return Fraction(getattr(frame, kind) * Fraction(frame.time_base))
