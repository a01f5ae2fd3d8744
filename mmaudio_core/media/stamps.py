"""What a file's time stamps are worth: where it starts, whether it stores any, and in which order they are meant."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from ..errors import InputError, MediaError
from .clock import ShownClock, clock_may_jump, placed
from .matroska import holds_its_whole_length
from .opening import decode_tolerantly, import_av, open_media, picture_streams

BROADCAST_CLOCK_S = Fraction(1, 2)
"""A container that starts later than this runs on a clock of its own (MPEG-TS of a broadcast starts at any hour)."""
_CLOCK_RESOLUTION = Fraction(2, 1_000_000)
_FIRST_PACKETS = 64
"""Where B-frames store no time stamps, or are shown in another order than they are stored, one is among these."""
_UNSTAMPED = 0x80
"""FFmpeg's format flag AVFMT_NOTIMESTAMPS: raw streams (H.264, MJPEG), whose demuxers count at an assumed rate."""


@dataclass(frozen=True)
class FileTimes:
    """What is known of a file's stamps before any picture is decoded.

    start: the instant of the file's clock that is shown at 0 s.
    stored: whether the file stores time stamps at all.
    order_gap: seconds between the two stamps of each picture where the file stores only an order of decoding though its codec
        shows pictures in another one (AVI); ``None`` for all others.
    jumps, stated_end: as in ``ShownClock``.
    tail_end: where the file says that its last picture ends, on its own clock; ``None`` where it does not say it.
    shifts: those of the pictures' clock over the whole file, in formats whose clock may jump.
    seen_s: how long the pictures are shown by all their packets, in the same formats: their headers state what their stamps do.
    """

    start: Fraction
    stored: bool = True
    order_gap: Fraction | None = None
    jumps: bool = False
    stated_end: Fraction | None = None
    tail_end: Fraction | None = None
    shifts: Sequence[Fraction] = ()
    seen_s: Fraction | None = None

    def clock(self, step: Fraction, *, beside_pictures: bool = False) -> ShownClock:
        """A clock for one track of the file; ``beside_pictures`` for one that is to jump as the pictures do."""
        shifts = self.shifts if beside_pictures else ()
        return ShownClock(step, jumps=self.jumps, stated_end=self.stated_end, shifts=shifts)


def file_times(path: str | os.PathLike[str], what: str = "video") -> FileTimes:
    """Looks at the header and the first packets of a media file; in formats whose clock may jump at all packets.

    what: the word for messages, as in ``open_media``.

    Raises:
        MediaError: not a readable media file.
    """
    with open_media(path, what) as container:
        jumps = clock_may_jump(container)
        stated_end = None
        if container.duration and not jumps:
            stated_end = Fraction((container.start_time or 0) + container.duration, 1_000_000)
        start, stored = clock_offset(container), stores_stamps(container)
        streams = picture_streams(container)
        if not streams:
            return FileTimes(start, stored, jumps=jumps, stated_end=stated_end)
        video = streams[0]
        first = list(islice(readable_packets(container, [video]), _FIRST_PACKETS))
        tail_end = _tail_end(container, video, Path(path), stated_end)
        stored = stored and any(packet.pts is not None for packet in first)
        start, order_gap = _picture_start(first, start, video), _order_gap(first, video)
    if order_gap is not None and not _shown_out_of_order(path):
        order_gap = None
    known = FileTimes(start, stored, order_gap, jumps, stated_end, tail_end)
    return _with_all_packets(known, path) if jumps else known


def readable_packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """Packets of ``streams`` in the order of the file; of a cut-off file what can be read."""
    av = import_av()
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        if packet.size:  # PyAV's flush packet has none
            yield packet


def stores_stamps(container: Any) -> bool:
    """Whether the file's format has time stamps; some raw streams get them from their demuxer alone."""
    return not int(container.format.flags) & _UNSTAMPED


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


def _picture_start(first: list[Any], start: Fraction, video: Any) -> Fraction:
    """``start``, or where the pictures start if that is earlier: what is before 0 would never be shown."""
    kept = (packet for packet in first if packet.pts is not None and not getattr(packet, "is_discard", False))
    stamps = [packet.pts * Fraction(packet.time_base) for packet in islice(kept, 9)]
    if not stamps:
        return start
    return min(start, ShownClock(frame_step(video)).place(stamps[0], stamps[1:]))


def _order_gap(first: list[Any], video: Any) -> Fraction | None:
    """See ``FileTimes.order_gap``; None unless the codec may reorder and yet all times of showing rise as stored."""
    if not getattr(video.codec_context, "has_b_frames", False):
        return None
    if len(first) < 2 or any(packet.pts is None or packet.dts is None for packet in first):
        return None
    if any(later.pts <= earlier.pts for earlier, later in pairwise(first)):
        return None
    return (first[0].pts - first[0].dts) * Fraction(first[0].time_base)


def _shown_out_of_order(path: str | os.PathLike[str]) -> bool:
    """Whether the first pictures, in the order in which they are decoded to be shown, carry stamps that fall back."""
    with open_media(path) as container:
        frames = islice(decode_tolerantly(container, picture_streams(container)[0]), _FIRST_PACKETS)
        return any(later <= earlier for earlier, later in pairwise(frame.pts for frame in frames if frame.pts is not None))


def _tail_end(container: Any, video: Any, path: Path, stated_end: Fraction | None) -> Fraction | None:
    """Matroska states no length of the last picture, only that of the track or, where there is but one, of the file."""
    if "matroska" not in container.format.name or not holds_its_whole_length(path):
        return None
    tag = next((value for key, value in video.metadata.items() if key.upper().startswith("DURATION")), None)
    try:
        hours, minutes, seconds = tag.split(":") if tag else ("", "", "")
        length = (int(hours) * 60 + int(minutes)) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return stated_end if len(container.streams) == 1 else None
    return length if stated_end is None else min(length, stated_end)


def _with_all_packets(times: FileTimes, path: str | os.PathLike[str]) -> FileTimes:
    """``times`` with what only all packets of the pictures say; none is decoded."""
    with open_media(path, "media") as container:
        video = picture_streams(container)[0]
        clock = times.clock(frame_step(video))
        begin: Fraction | None = None
        end = Fraction(0)
        for packet, at in placed(readable_packets(container, [video]), decoding_time, lambda packet: clock):
            delay = 0 if packet.pts is None or packet.dts is None else (packet.pts - packet.dts) * Fraction(packet.time_base)
            begin = at + delay if begin is None else begin
            end = max(end, at + delay)
        seen_s = None if begin is None else end - begin + clock.step
    return replace(times, shifts=tuple(clock.shifts), seen_s=seen_s)


def decoding_time(packet: Any) -> Fraction | None:
    """When a packet has to be decoded, in seconds on the file's clock; ``None`` where it is not said."""
    return None if packet.dts is None else packet.dts * Fraction(packet.time_base)
