"""Video files to picked, resized frames (spec section 4), through PyAV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..errors import MediaError
from ..spec.timing import CLIP_FPS, SYNC_FPS, check_duration
from ..types import VideoFrames
from .collect import FrameCollector, Progress
from .opening import decode_tolerantly, import_av, open_media, pick_video_stream
from .resize import CLIP_SIZE, SYNC_SIZE
from .rgb import RgbConverter, frame_pixels
from .rotation import MatrixReader, display_matrix, swaps_sides
from .shown import ShownFrames
from .stamps import FileTimes, exact_start, file_times, no_frame_from

_FRAME_COPIES = 2.2
"""Of the frames' memory that is held at most: buffers grow, and Synchformer's last frame is held for its segments."""
_SEEK_MARGINS_S = (0, 10)
"""Seconds before the wanted instant at which to try seeking; some indexes are coarse."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    width, height: pixels as shown, that is after rotation.
    fps: average frame rate; ``None`` where the file states none.
    duration_s: seconds of the video track, else of the file; ``None`` where neither is known without decoding.
    codec, container: FFmpeg's names, such as "h264" and "mov,mp4,m4a,3gp,3g2,mj2".
    """

    width: int
    height: int
    fps: float | None
    duration_s: float | None
    has_audio: bool
    codec: str
    container: str


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """Size, rate and length of a video file; decodes one frame, since rotation travels with frames.

    Raises:
        MediaError: for anything that is not a video with at least one decodable frame.
    """
    name = Path(path).name
    times = file_times(path)
    with open_media(path) as container:
        stream = pick_video_stream(container, name)
        frame = next(decode_tolerantly(container, stream), None)
        if frame is None:
            raise _no_frames(name)
        width, height = frame.width, frame.height
        if swaps_sides(display_matrix(frame)):
            width, height = height, width
        rate = stream.average_rate or getattr(stream, "guessed_rate", None)
        return VideoInfo(
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            duration_s=_stated_duration(times, container, stream),
            has_audio=bool(container.streams.audio),
            codec=stream.codec_context.name,
            container=container.format.name,
        )


def read_video(
    path: str | os.PathLike[str],
    duration_s: float | None,
    *,
    start_s: float = 0.0,
    clip_size: int = CLIP_SIZE,
    sync_size: int = SYNC_SIZE,
    hold_last: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
    device: torch.device | str | None = None,
    most_bytes: int | None = None,
) -> VideoFrames:
    """The frames of ``path`` that the two visual encoders see for ``duration_s`` seconds from ``start_s`` on.

    Any container and codec that FFmpeg decodes, constant or variable rate, turned as players turn it. Only frames that
    are taken are converted, each once, and decoding stops as soon as the walk ends, so memory does not grow with the
    file. ``duration_s=None`` reads to the end. A video that ends early gives a shorter ``VideoFrames.duration_s``; the
    caller tells the user.

    hold_last: the last frame stays until its own end instead of vanishing at its stamp. Off, as published: a 25 fps file
    of exactly 8 s then yields 199 sync frames and 7.96 s.
    progress: called with (frames collected, frames expected; 0 if unknown).
    workers: threads that convert and resize while this one decodes; ``None`` goes by the processors, 0 does all of it here.
    device: where frames are resized, the CPU unless told otherwise. None of this changes a single pixel.
    most_bytes: of memory that there is for the frames, which may take 16 MB a second for the published encoders while they are
        read, and half of that afterwards; ``None``: not looked at.

    Returns:
        clip uint8 (V, 3, clip_size, clip_size) and sync uint8 (frames, 3, sync_size, sync_size) (spec section 4).

    Raises:
        InputError: a duration below 0.64 s, a negative or non-finite start.
        MediaError: not a readable video, too short, ``start_s`` beyond its end, or more frames than there is memory for.
    """
    asked_s = None if duration_s is None else check_duration(duration_s)
    start = exact_start(start_s)
    name = Path(path).name
    bytes_per_s = 3 * (CLIP_FPS * clip_size**2 + SYNC_FPS * sync_size**2) * _FRAME_COPIES
    options: dict[str, Any] = {"workers": workers, "device": device}
    options["most_s"] = math.inf if most_bytes is None else most_bytes / bytes_per_s
    with (
        _frames_near(path, start) as (frames, expected_s),
        FrameCollector(asked_s, clip_size, sync_size, progress, expected_s=expected_s, **options) as collector,
    ):
        _check_room(name, asked_s, expected_s, bytes_per_s, most_bytes)
        _feed(collector, frames, hold_last, name)
        if collector.empty:
            raise no_frame_from(start, frames.end_s, name)
        video = collector.finish(frames.end_s, name)
        frames.tell(name, video.duration_s)
        return video


def _feed(collector: FrameCollector, frames: ShownFrames, hold_last: bool, name: str) -> None:
    matrices, to_rgb = MatrixReader(), RgbConverter()
    frame: Any = None
    for frame, at_s in frames:
        pixels = partial(frame_pixels, frame, matrices.read(frame), to_rgb)
        collector.feed(at_s, pixels)
        if collector.done:
            break
    if frame is None:
        raise _no_frames(name)
    if hold_last and not collector.empty:
        collector.hold(frames.end_s, pixels)


@contextmanager
def _frames_near(path: str | os.PathLike[str], start: Fraction) -> Iterator[tuple[ShownFrames, float | None]]:
    """Decoded frames from at or before ``start``, timed from ``start`` on, and the seconds that the file states from there on.

    A file that cannot be searched (raw streams, broken indexes, clocks that jump) is opened afresh and decoded from its
    beginning.
    """
    name = Path(path).name
    times = file_times(path)
    if start > 0 and not times.shifts and times.order_gap is None:
        with open_media(path) as container:
            stream = pick_video_stream(container, name)
            frames = _sought(container, stream, times.start + start)
            if frames is not None:
                yield ShownFrames(frames, stream, times, start), _stated_from(start, times, container, stream)
                return
    with open_media(path) as container:
        stream = pick_video_stream(container, name)
        shown = ShownFrames(decode_tolerantly(container, stream), stream, times, start)
        yield shown, _stated_from(start, times, container, stream)


def _sought(container: Any, stream: Any, instant: Fraction) -> Iterator[Any] | None:
    """Frames from a keyframe at or before ``instant`` (seconds on the container's clock); ``None`` where seeking fails."""
    av = import_av()
    for margin_s in _SEEK_MARGINS_S:
        try:
            container.seek(max(0, int((instant - margin_s) / stream.time_base)), stream=stream, backward=True)
        except av.FFmpegError:
            return None
        frames = decode_tolerantly(container, stream)
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts * first.time_base <= instant:
            return chain([first], frames)
    return None


def _stated_duration(times: FileTimes, container: Any, stream: Any) -> float | None:
    if times.seen_s is not None:
        return float(times.seen_s)
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def _stated_from(start: Fraction, times: FileTimes, container: Any, stream: Any) -> float | None:
    stated_s = _stated_duration(times, container, stream)
    return None if stated_s is None else max(0.0, stated_s - float(start))


def _check_room(name: str, asked_s: float | None, expected_s: float | None, bytes_per_s: float, most_bytes: int | None) -> None:
    span_s = min(math.inf if asked_s is None else asked_s, math.inf if expected_s is None else expected_s)
    needed = span_s * bytes_per_s
    if most_bytes is not None and math.isfinite(span_s) and needed > most_bytes:
        raise MediaError(
            f"Reading the frames of {span_s:.0f} s of {name} takes {needed / 1e9:.1f} GB, and {most_bytes / 1e9:.1f} GB of "
            "memory are free. Ask for a shorter duration; with other starts a long video can be done part by part."
        )


def _no_frames(name: str) -> MediaError:
    return MediaError(f"{name} has a video track but no frame of it can be decoded. Check that it plays in a media player.")
