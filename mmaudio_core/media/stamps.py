"""Time stamps of decoded frames, in seconds from the start of the picture."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from ..errors import InputError, MediaError

BROADCAST_CLOCK_S = Fraction(1, 2)
"""A container that starts later than this runs on a clock of its own (MPEG-TS of a broadcast starts at any hour)."""
_CLOCK_RESOLUTION = Fraction(2, 1_000_000)


def clock_offset(container: Any) -> Fraction:
    """Seconds to subtract from every stamp: the container's start time if it exceeds 0.5 s, else 0.

    The published program takes stamps as they are, which for a recording that starts at 10:00:00 would repeat its first
    frame for hours. Small offsets (a B-frame delay, encoder priming) are left alone, as published.
    """
    if container.start_time is None:
        return Fraction(0)
    start = Fraction(container.start_time, 1_000_000)
    if start <= BROADCAST_CLOCK_S:
        return Fraction(0)
    # The container rounds to microseconds; the stream that starts it knows the exact value, and a first frame at
    # -0.0000003 s would not be taken.
    for stream in container.streams:
        if stream.start_time is not None and stream.time_base is not None:
            exact = stream.start_time * stream.time_base
            if abs(exact - start) <= _CLOCK_RESOLUTION:
                return Fraction(exact)
    return start


def exact_start(start_s: float) -> Fraction:
    """``start_s`` as the fraction that was meant: 3.24 is 81/25, not the float just above, which would miss that frame.

    Raises:
        InputError: negative or not finite.
    """
    if not math.isfinite(start_s) or start_s < 0:
        raise InputError(f"A start of {start_s} s was asked for; it must be 0 or more.")
    return Fraction(start_s).limit_denominator(1_000_000)


def no_frame_from(start: Fraction, end_s: float, source: str) -> MediaError:
    """For a ``source`` whose frames all begin before ``start`` and end ``end_s`` seconds after it (mostly negative)."""
    return MediaError(
        f"{source} ends at {end_s + float(start):.2f} s, and no frame of it begins within the time asked for, "
        f"from the start of {float(start):g} s on. Choose an earlier start."
    )


def frame_step(stream: Any) -> Fraction:
    """Seconds from one frame to the next by the stream's rate; 1/25 where it states none."""
    rate = stream.average_rate or getattr(stream, "guessed_rate", None)
    return 1 / Fraction(rate) if rate else Fraction(1, 25)


class StampClock:
    """Turns decoded frames, in display order, into float seconds: float((pts * time_base) - offset), from exact fractions.

    Some containers store no presentation times: raw H.264 has none, AVI with B-frames has decoding times that are no
    use. Then the decoding time is used (it grows with display order once decoded), and failing that the frame rate.
    """

    def __init__(self, offset: Fraction, step: Fraction) -> None:
        self._offset, self._step = offset, step
        self._last: Fraction | None = None
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._pts_faults = self._dts_faults = 0
        self.end_s = 0.0
        """Where the last frame ends, in seconds."""

    def stamp(self, frame: Any) -> float:
        """The stamp of the next frame."""
        ticks = self._trusted_ticks(frame.pts, frame.dts)
        if ticks is not None:
            exact = ticks * Fraction(frame.time_base) - self._offset
        elif self._last is not None:
            exact = self._last + self._step
        else:
            exact = -self._offset
        self._last = exact
        ticks_shown = getattr(frame, "duration", None) or 0
        shown = ticks_shown * Fraction(frame.time_base) if frame.time_base else Fraction(0)
        self.end_s = float(exact + (shown if shown > 0 else self._step))
        return float(exact)

    def _trusted_ticks(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self._dts_faults += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._pts_faults += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        if pts is not None and (self._pts_faults <= self._dts_faults):
            return pts
        return dts
