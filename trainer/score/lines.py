"""The sounds that are scored: the model's, and those that show how good and how bad a score can be.

``model``: made from the clip's pictures and words. ``truth``: the world's own sound. ``round_trip``: that sound through the
model's VAE and vocoder, the best that any flow network could make of them. ``silence``. ``shuffled``: the true sound of another
clip, a random one of those to train on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.spec.timing import SyncTiming, check_duration, check_sync_timing
from mmaudio_core.types import Features

from ..world import DURATION_S, HELD_OUT_SEED, WorldClip, make_clip

if TYPE_CHECKING:
    from mmaudio_core.pipeline.model import MMAudio

    from ..data.round_trip import RoundTripper

LINES = ("model", "truth", "round_trip", "silence", "shuffled")
SCORED_FROM = HELD_OUT_SEED + 100_000_000
"""First seed of the scored clips, away from those that ``mmaudio-train world`` writes for validation."""
TRAINING_SEEDS = 100_000
"""``shuffled`` takes clips of the seeds below."""


@dataclass(frozen=True)
class Wishes:
    """What to score.

    clips: how many, of the seeds SCORED_FROM + ``seed`` and on. seed: also of the model's noise. prompts: the clip's first
    caption, or none. negative: a negative prompt for all clips. video: False leaves the pictures out. duration_s: the clips'
    first seconds. sync_timing: of the model's features; None leaves it to the network.
    """

    clips: int = 200
    seed: int = 0
    prompts: Literal["caption", "none"] = "caption"
    negative: str = ""
    video: bool = True
    duration_s: float = DURATION_S
    sync_timing: SyncTiming | None = None
    settings: SampleSettings = field(default_factory=SampleSettings)
    lines: tuple[str, ...] = LINES

    def __post_init__(self) -> None:
        if self.clips < 1 or not 0 <= self.seed < HELD_OUT_SEED // 10:
            raise InputError(
                f"{self.clips} clips from seed {self.seed} on were asked for; 1 clip or more is needed, and a seed from 0 to "
                f"{HELD_OUT_SEED // 10 - 1}."
            )
        check_duration(self.duration_s)
        check_sync_timing(self.sync_timing)
        if self.duration_s > DURATION_S:
            raise InputError(f"{self.duration_s:g} s of each clip were asked for; the world's clips have {DURATION_S:g} s.")
        if unknown := [line for line in self.lines if line not in LINES]:
            raise InputError(f"The line {unknown[0]!r} is unknown; use {', '.join(LINES)}.")
        if "model" in self.lines and self.prompts == "none" and not self.video:
            raise InputError("Neither prompts nor video is left for the model; give it one of them.")

    @property
    def seeds(self) -> range:
        """Of the scored clips."""
        return range(SCORED_FROM + self.seed, SCORED_FROM + self.seed + self.clips)


class Sounds:
    """Makes each line's sounds for clips of the model's sample rate."""

    def __init__(self, model: MMAudio, tripper: RoundTripper | None, wishes: Wishes) -> None:
        self._model, self._tripper, self._wishes = model, tripper, wishes

    def of(self, line: str, clips: Sequence[WorldClip]) -> list[Tensor]:
        """A sound (N,) float32 for each of ``clips``."""
        if line == "model":
            return self._made(clips)
        return [self._lines(line, clip) for clip in clips]

    def _lines(self, line: str, clip: WorldClip) -> Tensor:
        samples = torch.from_numpy(clip.samples)
        if line == "truth":
            return samples
        if line == "silence":
            return torch.zeros_like(samples)
        if line == "round_trip":
            return self._round_trip(samples)
        seed = int(np.random.default_rng((self._wishes.seed, clip.seed)).integers(TRAINING_SEEDS))
        return torch.from_numpy(make_clip(seed, clip.sample_rate_hz, pictures=False).samples[: len(clip.samples)])

    def _round_trip(self, samples: Tensor) -> Tensor:
        from mmaudio_core.spec.timing import sequence_lengths

        from .strikes import at_peak

        assert self._tripper is not None
        audio = self._tripper.audio
        whole = audio.samples_of_latents(sequence_lengths(self._wishes.duration_s, audio).latent)
        # At the level at which VAE and vocoder were trained.
        padded = torch.nn.functional.pad(at_peak(samples), (0, whole - len(samples)))
        return self._tripper.back(padded)[1][: len(samples)]

    def _made(self, clips: Sequence[WorldClip]) -> list[Tensor]:
        """The model's sounds, all clips in one batch."""
        model, features = self._model, Features()
        if self._wishes.video:
            seen = [model.encode_frames(model.read_frames(clip.frames, clip.fps)) for clip in clips]
            clip_rows = [one.clip for one in seen if one.clip is not None]
            sync_rows = [one.sync for one in seen if one.sync is not None]
            features = Features(torch.cat(clip_rows), torch.cat(sync_rows), duration_s=seen[0].duration_s)
        features = replace(features, sync_timing=self._wishes.sync_timing)
        if self._wishes.prompts == "caption":
            features = replace(features, text=model.encode_text([clip.captions[0] for clip in clips]))
        negative = model.encode_text([self._wishes.negative]) if self._wishes.negative else None
        seeds = [clip.seed + self._wishes.seed for clip in clips]
        latents = model.sample(features, self._wishes.duration_s, seeds, negative, self._wishes.settings)
        audio = model.vocode(model.decode(latents))
        return list(audio.samples[:, 0])
