"""From a model and wishes to the scores of all lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..world import Event, WorldClip, make_clip
from .classifier import Classifier
from .lines import Sounds, Wishes
from .measure import Ear, Heard, scores
from .strikes import strikes_of

if TYPE_CHECKING:
    from mmaudio_core.pipeline.model import MMAudio

    from ..data.round_trip import RoundTripper

Progress = Callable[[int, int], None]


def score(
    model: MMAudio,
    tripper: RoundTripper | None,
    classifier: Classifier,
    wishes: Wishes,
    progress: Progress = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Line -> measure -> number, and "counts": clips, clips with strikes, strikes.

    tripper: needed for the line ``round_trip`` alone. progress: gets (clips done, in all).

    Raises:
        InputError: when the clips hold fewer than two strikes.
    """
    ear, sounds = Ear(classifier), Sounds(model, tripper, wishes)
    heard: dict[str, list[Heard]] = {line: [] for line in ("truth", *wishes.lines)}
    strikes: list[tuple[Event, ...]] = []
    for clips in _batches(model, wishes):
        for line, found in heard.items():
            found += [ear.hear(sound, clip) for sound, clip in zip(sounds.of(line, clips), clips, strict=True)]
        strikes += [strikes_of(clip) for clip in clips]
        progress(len(strikes), wishes.clips)
    counts = {"clips": len(strikes), "clips_with_strikes": sum(map(bool, strikes)), "strikes": sum(map(len, strikes))}
    return {line: scores(strikes, heard[line], heard["truth"]) for line in wishes.lines} | {"counts": counts}


def _batches(model: MMAudio, wishes: Wishes) -> Iterator[list[WorldClip]]:
    pictures = wishes.video and "model" in wishes.lines
    size, seeds = wishes.settings.batch_size, wishes.seeds
    for first in range(0, len(seeds), size):
        clips = (make_clip(s, model.audio.sample_rate_hz, pictures=pictures) for s in seeds[first : first + size])
        yield [clip.beginning(wishes.duration_s) for clip in clips]
