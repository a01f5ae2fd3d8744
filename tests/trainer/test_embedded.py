"""The embedded model on the small world that it was trained on: its sound falls on what is seen, and is of the right kind."""

from __future__ import annotations

from typing import Any

import pytest

import mmaudio_core
from mmaudio_core.metrics.onset_scores import STRICT_WINDOW_S, onset_scores
from mmaudio_core.metrics.onsets import Onsets, detect_onsets
from mmaudio_core.spec.timing import SyncTiming
from trainer.score.strikes import strikes_of
from trainer.world import make_clip

SECONDS = 4.0
SEEDS = (1_400_000_001, 1_400_000_002)
"""Neither trained on, nor scored, nor shown by the demo."""


@pytest.fixture(scope="module")
def model() -> Any:
    return mmaudio_core.load("tiny", device="cpu")


def made(model: Any, seed: int, sync_timing: SyncTiming | None = None) -> tuple[list[float], Onsets]:
    """The strikes in a clip's first 4 s, and the onsets in the sound that the model gives its pictures and words."""
    clip = make_clip(seed, scene="stick").beginning(SECONDS)
    given = {"frames": clip.frames, "fps": clip.fps, "prompt": clip.captions[0], "seed": 1}
    sound = model.generate(**given, sync_timing=sync_timing).takes[0].audio
    assert sound.samples.shape[-1] == SECONDS * sound.sample_rate_hz
    return [event.time_s for event in strikes_of(clip)], detect_onsets(sound.samples[0, 0], sound.sample_rate_hz)


def test_onsets_fall_on_at_least_half_of_the_strikes(model: Any) -> None:
    clips = [made(model, seed) for seed in SEEDS]
    assert sum(len(strikes) for strikes, _ in clips) >= 4
    scores = onset_scores(clips, STRICT_WINDOW_S)
    assert scores.recall >= 0.5
    assert scores.precision >= 0.5, "not by striking all the time"


def test_stretched_as_published_a_short_clip_comes_late(model: Any) -> None:
    """Which is why the network's own timing is "steady"."""
    clips = [made(model, seed, "stretched") for seed in SEEDS]
    assert onset_scores(clips, STRICT_WINDOW_S).f1 < 0.5
