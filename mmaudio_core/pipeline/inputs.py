"""What may be given to a run together, and what is said of its duration."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Any

from ..errors import InputError
from ..spec.timing import check_duration, sync_frames

log = logging.getLogger("mmaudio")

DEFAULT_DURATION_S = 8.0
"""The duration that the published networks were trained on; used where no video says otherwise."""
LONG_DURATION_S = 12.0
"""From here on a warning: 32 s in one pass are out of step on the small world (docs/proving-ground.md, "Other lengths")."""


def check_given(
    video: Any, frames: Any, fps: float | Fraction | None, image: Any, duration_s: float | None, start_s: float
) -> None:
    """Of the pictures at most one kind, and only what belongs to it.

    Raises:
        InputError: when two are given, frames without their rate, a rate or a start without what it is of, or too short a time.
    """
    if duration_s is not None:
        check_duration(duration_s)
    if start_s and video is None:
        raise InputError(f"A start of {start_s:g} s was given without a video file; only a file can be entered later.")
    given = [name for name, value in (("video", video), ("frames", frames), ("image", image)) if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; give one of them.")
    if frames is not None and fps is None:
        raise InputError("Frames were given without fps; give the frame rate they are shown at, it is never guessed.")
    if frames is None and fps is not None:
        raise InputError("fps was given without frames; a video file brings its own time stamps.")


def tell_duration(asked_s: float | None, covered_s: float, moving: bool = True) -> None:
    """Warn when the sound is shorter than asked for, or far longer than what the networks know.

    moving: there are pictures that the sound has to keep step with.
    """
    if asked_s is not None and sync_frames(covered_s) < sync_frames(asked_s):
        log.warning("The video ends after %.2f s; the sound is cut to that (%.2f s were asked for).", covered_s, asked_s)
    if covered_s > LONG_DURATION_S:
        known = f"{covered_s:.1f} s are far beyond the 8 s that the published networks were trained on"
        if moving:
            log.warning(
                "%s: made in one pass, the sound falls out of step with the picture in either sync timing. "
                "Make pieces of up to 8 s, each with its own start and duration.",
                known,
            )
        else:
            log.warning("%s; expect less. Make it shorter.", known)
