"""Decoded blocks of a file's sound track, with the instants that they carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import MediaError
from .opening import decode_tolerantly, import_av, pick_audio_stream

_FORMAT = "flt"
"""Packed, since PyAV crashes on planar frames of 8 channels and more."""


@dataclass(frozen=True)
class SoundBlock:
    """``samples`` float32 (C, n) at ``sample_rate_hz``.

    start_s: when the first of them is heard, on the container's clock; ``None`` where the file does not say.
    """

    samples: np.ndarray
    sample_rate_hz: int
    start_s: Fraction | None


def decode_sound(container: Any, name: str) -> Iterator[SoundBlock]:
    """The first sound track of an open container in blocks, all with the channels and the rate of the first one.

    An encoder's priming is gone where the file states it; the instants are those of what is left.

    Raises:
        MediaError: no sound track, no decoder for it, or nothing of it decodes.
    """
    heard = False
    for frame in _in_one_form(decode_tolerantly(container, pick_audio_stream(container, name))):
        if not frame.samples:
            continue
        heard = True
        channels = frame.layout.nb_channels
        samples = np.ascontiguousarray(frame.to_ndarray().reshape(-1, channels).T)
        timed = frame.pts is not None and frame.time_base
        yield SoundBlock(samples, frame.sample_rate, frame.pts * Fraction(frame.time_base) if timed else None)
    if not heard:
        raise MediaError(f"{name} has a sound track but nothing of it can be decoded. Check that it plays in a media player.")


def _in_one_form(frames: Iterable[Any]) -> Iterator[Any]:
    """Frames as float; broadcasts change their channels or rate midway, and then follow the first frame's."""
    av = import_av()
    converter: Any = None
    form: tuple[Any, ...] = ()
    first: dict[str, Any] = {}
    for frame in frames:
        if form != (frame.format.name, frame.layout.name, frame.sample_rate):
            if converter is not None:
                yield from converter.resample(None)
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            converter = av.AudioResampler(format=_FORMAT, **first)
            first = first or {"layout": frame.layout, "rate": frame.sample_rate}
        yield from converter.resample(frame)
    if converter is not None:
        yield from converter.resample(None)
