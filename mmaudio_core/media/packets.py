"""Which packets of a video to copy, in decoding order, so that a window of it decodes without re-encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

from ..errors import MediaError
from .opening import import_av, open_media
from .repaced import in_shown_order, repaced, shown_until
from .stamps import file_times, frame_step, readable_packets, stores_stamps

_FIRST_PACKETS = 32
"""Where B-frames store no time stamps, one is among these."""


def packets_in_window(source: Any, streams: list[Any], start: Fraction, stop: Fraction | None) -> Iterator[Any]:
    """Packets of ``streams`` (video first) that frames shown in [start, start + stop) need, from a freshly opened ``source``.

    Their time stamps count from ``start``, on the clock on which the pictures are read. Packets of the keyframe's group that
    are shown earlier have negative stamps.

    Raises:
        MediaError: the video stores no time stamps.
    """
    times = file_times(source.name)
    offset = times.start + start
    if start > 0 and not times.shifts and _can_seek(source.name, streams[0].index, offset):
        source.seek(_ticks(offset, streams[0]), stream=streams[0], backward=True)
    stamped = _with_decoding_times(_stamped(source, streams), streams)
    if times.order_gap is not None:
        stamped = in_shown_order(stamped, streams[0], source.name, times)
    on_clock = shown_until(repaced(stamped, streams, times), times.tail_end)
    shifted = (_shift(packet, offset) for packet in on_clock)
    return _until(_from_keyframe(shifted) if start > 0 else shifted, streams, stop)


def shown_s(packet: Any) -> Fraction:
    """When a packet's frame is shown, in seconds."""
    return packet.pts * Fraction(packet.time_base)


def decoded_s(packet: Any) -> Fraction:
    """When a packet has to be decoded, in seconds; never after :func:`shown_s`."""
    return packet.dts * Fraction(packet.time_base)


def _can_seek(path: str, index: int, instant: Fraction) -> bool:
    """Whether seeking to ``instant`` finds a keyframe at or before it; without an index (MPEG-TS) it may overshoot.

    Tried on a second opening, since one that has overshot may not find back to its beginning.
    """
    av = import_av()
    with open_media(path) as trial:
        video = trial.streams[index]
        try:
            trial.seek(_ticks(instant, video), stream=video, backward=True)
            first = next((packet for packet in trial.demux(video) if packet.is_keyframe and packet.pts is not None), None)
        except av.FFmpegError:
            return False
        return first is not None and shown_s(first) <= instant


def _ticks(instant: Fraction, stream: Any) -> int:
    return max(0, int(instant / stream.time_base))


def _stamped(source: Any, streams: list[Any]) -> Iterator[Any]:
    for packet in readable_packets(source, streams):
        _check_stamp(packet)
        if not packet.duration and packet.stream.type == "video":
            # MPEG-TS states none; FFmpeg 8.0 then gives the last frame no time at all, and players never show it.
            packet.duration = _frame_ticks(packet)
        yield packet


def check_stamps(source: Any, streams: list[Any]) -> None:
    """Looks at the first packets of ``streams`` of a freshly opened ``source``.

    Raises:
        MediaError: one has no time stamp, so none of them can be copied.
    """
    if not stores_stamps(source):
        raise _unstamped(streams[0])
    for packet in islice(readable_packets(source, streams), _FIRST_PACKETS):
        _check_stamp(packet)


def _check_stamp(packet: Any) -> None:
    if packet.pts is None:
        raise _unstamped(packet.stream)


def _unstamped(stream: Any) -> MediaError:
    what = "video" if stream.type == "video" else "video's sound"
    return MediaError(f"This {what} stores no time stamps (as raw H.264 does). Convert it to .mp4 or .mkv first.")


def _frame_ticks(packet: Any) -> int:
    return max(1, round(frame_step(packet.stream) / packet.time_base))


def _with_decoding_times(packets: Iterable[Any], streams: list[Any]) -> Iterator[Any]:
    """Fills in decoding times that Matroska leaves out before the first B-frame: evenly spaced before the first known one."""
    unknown: dict[int, list[Any]] = {stream.index: [] for stream in streams}
    for packet in packets:
        missing = unknown[packet.stream.index]
        if packet.dts is None:
            missing.append(packet)
            continue
        if missing:
            step = packet.duration or _frame_ticks(packet)
            for back, earlier in enumerate(reversed(missing), start=1):
                earlier.dts = min(packet.dts - back * step, earlier.pts)
            yield from missing
            missing.clear()
        yield packet
    for missing in unknown.values():
        for packet in missing:
            packet.dts = packet.pts
            yield packet


def _shift(packet: Any, offset: Fraction) -> Any:
    ticks = round(offset / packet.time_base)
    packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
    return packet


def _from_keyframe(packets: Iterable[Any]) -> Iterator[Any]:
    """Drops what lies before the last keyframe shown at or before 0, and sound that ends by 0."""
    held: list[Any] = []
    searching, keyframe_seen = True, False
    for packet in packets:
        if packet.stream.type != "video":
            if (packet.pts + (packet.duration or 0)) * packet.time_base > 0:
                held.append(packet)
        else:
            # No later packet is shown before its own decoding time, so from 0 on the search is over.
            searching = searching and decoded_s(packet) < 0
            if packet.is_keyframe and (shown_s(packet) <= 0 or not keyframe_seen):
                held = [other for other in held if other.stream.type != "video"]
                keyframe_seen = True
            if keyframe_seen:
                held.append(packet)
        if not searching:
            yield from held
            held = []
    yield from held if keyframe_seen and not searching else ()


def _until(packets: Iterable[Any], streams: list[Any], stop: Fraction | None) -> Iterator[Any]:
    """Ends each stream at ``stop`` seconds.

    A packet shown after the cut may be what an earlier shown B-frame, which follows it in the file, is predicted from.
    Such packets wait until one of those follows; a decoding time at the cut means that none will.
    """
    waiting: dict[int, list[Any]] = {stream.index: [] for stream in streams}
    running = set(waiting)
    for packet in packets:
        index = packet.stream.index
        if index not in running:
            continue
        if stop is not None and decoded_s(packet) >= stop:
            running.discard(index)
            if not running:
                return
        elif stop is not None and shown_s(packet) >= stop:
            waiting[index].append(packet)
        else:
            yield from waiting[index]
            waiting[index].clear()
            yield packet
