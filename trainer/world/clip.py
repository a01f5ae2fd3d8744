"""One clip of the world."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmaudio_core.errors import InputError

from .draw import FPS, draw_frames
from .plan import DURATION_S, SCENES, SIZE, Event, draw_scene
from .sound import sound_of
from .streams import Streams
from .unseen import rounded
from .words import captions_of

HELD_OUT_SEED = 1_000_000_000
"""Seeds from here on are never trained on."""

__all__ = ["DURATION_S", "FPS", "HELD_OUT_SEED", "SIZE", "WorldClip", "make_clip"]


@dataclass(frozen=True)
class WorldClip:
    """8 s: ``frames`` (200, SIZE, SIZE, 3) uint8 at ``fps``, ``samples`` (N,) float32 in [-1, 1] in steps of 16 bits.

    ``captions`` say the same in several ways, ``events`` are exact.
    """

    seed: int
    scene: str
    fps: int
    frames: np.ndarray
    sample_rate_hz: int
    samples: np.ndarray
    captions: tuple[str, ...]
    events: tuple[Event, ...]

    def beginning(self, duration_s: float) -> WorldClip:
        """The first ``duration_s`` seconds, with the same captions."""
        if duration_s >= DURATION_S:
            return self
        return replace(
            self,
            frames=self.frames[: round(duration_s * self.fps)],
            samples=self.samples[: round(duration_s * self.sample_rate_hz)],
            events=tuple(event for event in self.events if event.time_s < duration_s),
        )


def make_clip(seed: int, sample_rate_hz: int = 16_000, scene: str | None = None, pictures: bool = True) -> WorldClip:
    """The clip of a seed; the same on every machine, at 16 kHz and 44.1 kHz the same events.

    scene: one of SCENES, or None for one drawn by how usual it is. pictures: False leaves ``frames`` empty, which is faster.

    Raises:
        InputError: for a negative seed, an unknown scene, or a rate below 8 kHz.
    """
    if seed < 0:
        raise InputError(f"The seed {seed} was given; a whole number of 0 or more is needed.")
    if scene is not None and scene not in SCENES:
        raise InputError(f"The scene {scene!r} was given; known are {', '.join(SCENES)}.")
    if sample_rate_hz < 8000:
        raise InputError(f"A sample rate of {sample_rate_hz} Hz was given; the world's sounds need 8000 Hz or more.")
    streams = Streams(seed, "clip")
    plan = draw_scene(streams("plan"), scene)
    empty = np.empty((0, SIZE, SIZE, 3), np.uint8)
    return WorldClip(
        seed=seed,
        scene=plan.kind,
        fps=FPS,
        frames=draw_frames(plan, streams("pictures")) if pictures else empty,
        sample_rate_hz=sample_rate_hz,
        samples=rounded(sound_of(plan, sample_rate_hz, streams("sound"))),
        captions=captions_of(plan, streams("words")),
        events=plan.events,
    )
