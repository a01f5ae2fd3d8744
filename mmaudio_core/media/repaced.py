"""Packets to be copied, with the stamps that they should have had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from .clock import placed
from .opening import decode_tolerantly, open_media
from .shown import ShownFrames
from .stamps import FileTimes, decoding_time, frame_step

_SOUND_STEP = Fraction(1, 50)
_MOST_DELAY_S = Fraction(2)
"""No codec shows a picture this long after it was decoded; such a stamp is wrong by itself."""


def repaced(packets: Iterable[Any], streams: list[Any], times: FileTimes) -> Iterator[Any]:
    """Packets of ``streams``, all stamped, each stream on a clock that never falls or leaps (see ``ShownClock``).

    Honest stamps stay as they are.
    """
    clocks = {
        stream.index: times.clock(
            frame_step(stream) if stream.type == "video" else _SOUND_STEP, beside_pictures=stream.type != "video"
        )
        for stream in streams
    }
    delays: dict[int, int] = {}
    for packet, at in placed(packets, decoding_time, lambda packet: clocks[packet.stream.index]):
        ticks = round((at - packet.dts * packet.time_base) / packet.time_base)
        delay = packet.pts - packet.dts
        if not 0 <= delay * packet.time_base <= max(_MOST_DELAY_S, 16 * clocks[packet.stream.index].step):
            delay = delays.get(packet.stream.index, 0)
        delays[packet.stream.index] = delay
        packet.dts += ticks
        packet.pts = packet.dts + delay
        yield packet


def in_shown_order(packets: Iterable[Any], video: Any, path: str, times: FileTimes) -> Iterator[Any]:
    """Packets of a file that stores only an order of decoding, with the times at which their pictures are shown.

    That order is known to the decoder alone, so the pictures are decoded beside; nothing of them is kept.
    """
    with open_media(path) as container:
        stream = container.streams[video.index]
        shown = ShownFrames(decode_tolerantly(container, stream), stream, times)
        frames = iter(shown)
        known: dict[int, Fraction] = {}
        for packet in packets:
            if packet.stream.index != video.index:
                yield packet
                continue
            while packet.pts not in known:
                frame, at_s = next(frames, (None, 0.0))
                if frame is None:
                    break
                if frame.pts is not None:
                    known[frame.pts] = Fraction(at_s) + times.start
            at = known.pop(packet.pts, None)
            lead = round((shown.lead or 0) / packet.time_base)
            packet.pts = packet.dts if at is None else round(at / packet.time_base)
            packet.dts = min(packet.dts - lead, packet.pts)
            yield packet


def shown_until(packets: Iterable[Any], end: Fraction | None) -> Iterator[Any]:
    """``packets`` (video and others), where the last picture lasts until ``end`` on their clock; ``None`` leaves it alone."""
    held: list[Any] = []
    for packet in packets:
        if packet.stream.type == "video":
            yield from held
            held = []
        if held or packet.stream.type == "video":
            held.append(packet)
        else:
            yield packet
    if held and end is not None:
        held[0].duration = max(held[0].duration, int(end / held[0].time_base) - held[0].pts)
    yield from held
