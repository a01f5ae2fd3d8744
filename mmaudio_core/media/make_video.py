"""Small silent videos from drawn frames, for tests and the demo."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError, MediaError
from .atomic import atomic_path
from .opening import import_av


def write_silent_video(
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    path: str | os.PathLike[str],
    *,
    stamps_s: Iterable[Fraction] | None = None,
    codec: str | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes uint8 RGB frames (H, W, 3), H and W even for yuv420p, as H.264 (MPEG-4 part 2 where libx264 is missing).

    stamps_s: a time stamp per frame for a variable frame rate; the default is k / fps.
    codec, pix_fmt, options: FFmpeg's names, for unusual test files.

    Raises:
        MediaError: no frames, or the encoder refuses them.
        InputError: a frame rate of 0 or less.
    """
    av = import_av()
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise InputError(f"A frame rate of {fps} was given; it must be above 0 frames per second.")
    target = Path(path)
    codec = codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4")
    # A clock of 1/90000 s holds any stamp of a variable rate closely; a constant rate keeps its exact one.
    time_base = 1 / rate if stamps_s is None else Fraction(1, 90_000)
    stamps = None if stamps_s is None else iter(stamps_s)
    with atomic_path(target) as temporary:
        try:
            with av.open(str(temporary), "w") as container:
                stream = None
                for index, image in enumerate(frames):
                    if stream is None:
                        stream = container.add_stream(codec, rate=rate, options=options or {})
                        stream.height, stream.width, stream.pix_fmt = image.shape[0], image.shape[1], pix_fmt
                        stream.codec_context.time_base = time_base
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                    frame.time_base = time_base
                    frame.pts = index if stamps is None else round(next(stamps) / time_base)
                    container.mux(stream.encode(frame))
                if stream is None:
                    raise MediaError(f"There are no frames to write to {target.name}.")
                container.mux(stream.encode(None))
        except (av.FFmpegError, StopIteration) as error:
            raise MediaError(f"{target.name} could not be encoded with {codec}: {error}") from error
    return target
