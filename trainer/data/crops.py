"""Which pieces of a file are trained on (arXiv 2412.15322, appendix on training data; spec section 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mmaudio_core.errors import InputError

Kind = Literal["av", "at"]
"""Audio-visual (a video with sound) or audio-text (sound alone)."""
CROP_S = 8.0
MAX_CROPS = 5
_SLACK_S = 1e-3
"""Headers round a length to milliseconds (Matroska); a file of 8 s must not fail for that."""


@dataclass(frozen=True)
class Crop:
    """A piece of a file: ``duration_s`` seconds from ``start_s`` on, on the file's own clock."""

    start_s: float
    duration_s: float


def crops_of(
    kind: Kind,
    media_duration_s: float,
    start_s: float | None = None,
    end_s: float | None = None,
    duration_s: float = CROP_S,
) -> list[Crop]:
    """The crops of ``duration_s`` seconds of one file, or of its range from ``start_s`` to ``end_s``; [] when it is shorter.

    Videos give their first 8 s. Recordings of 8 s and more give their first 8 s; from 16 s on as many crops as fit without
    overlap, five at most, the first at the start and the last at the end, so that a long recording is heard in all its parts.

    media_duration_s: seconds of the file.

    Raises:
        InputError: a duration that is not above 0, or a negative start.
    """
    begin = 0.0 if start_s is None else start_s
    if not (math.isfinite(duration_s) and duration_s > 0) or not (math.isfinite(begin) and begin >= 0):
        raise InputError(
            f"Crops of {duration_s:g} s from {begin:g} s on were asked for; "
            "the duration must be above 0 and the start 0 or more."
        )
    end = media_duration_s if end_s is None else min(end_s, media_duration_s)
    length = end - begin + _SLACK_S
    fitting = int(length / duration_s)
    if fitting < 1:
        return []
    count = 1 if kind == "av" else min(fitting, MAX_CROPS)
    if count == 1:
        return [Crop(begin, duration_s)]
    # Whole milliseconds, rounded down: the last crop must not pass the end.
    spread_s = (end - begin - duration_s) / (count - 1)
    step_s = max(duration_s, math.floor(spread_s * 1000) / 1000)
    return [Crop(round(begin + place * step_s, 6), duration_s) for place in range(count)]
