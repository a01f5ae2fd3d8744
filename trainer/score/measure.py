"""What is measured of each line's sounds.

    onset_f1_50ms, onset_f1  F1 of the detected onsets against the world's exact strike times, within 0.05 s and within the
                             paper's 0.3 s; all clips pooled
    onset_count_match           share of the clips in which exactly as many onsets are detected as there are strikes
    onset_ap                 average precision of the detections in order of strength, within 0.3 s
    heard_onset_...          the same four against the onsets detected in the true sound, as in the paper
    material_accuracy        share of the strikes at whose exact time the classifier hears the right material; chance: 1/6
    heard_as_wood, ...       share of all strikes at which the classifier hears wood, ..., whatever was struck
    frechet_distance         between the classifier's features of all strikes in these and in the true sounds
    kl                       mean over strikes of KL(truth, line) of the classifier's classes
    loudness_correlation     Pearson's, of the visible strength and the loudness of the 0.1 s after the strike, both in dB and
                             less their means over the strikes on one material of one clip, since a model cannot know how
                             loud a clip was; 0 where nothing varies

Only clips with strikes count, as in the data that the paper measures on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.media.resample import resample
from mmaudio_core.metrics.distances import frechet_distance, kl_divergence
from mmaudio_core.metrics.onset_scores import (
    PAPER_WINDOW_S,
    STRICT_WINDOW_S,
    Clip,
    onset_average_precision,
    onset_count_match,
    onset_scores,
)
from mmaudio_core.metrics.onsets import Onsets, detect_onsets
from mmaudio_core.spec.audio import AUDIO_16K

from ..world import MATERIALS, Event, WorldClip
from .classifier import Classifier
from .strikes import at_peak, loudness_db, mel_patches, strikes_of

ONSET_KEYS = ("onset_f1_50ms", "onset_f1", "onset_count_match", "onset_ap")
KEYS = (
    *ONSET_KEYS,
    "material_accuracy",
    "frechet_distance",
    "kl",
    "loudness_correlation",
    *(f"heard_{key}" for key in ONSET_KEYS),
    *(f"heard_as_{material}" for material in MATERIALS),
)


@dataclass(frozen=True)
class Heard:
    """A sound's onsets; at its clip's strikes logits (strikes, materials), features (strikes, width), loudness (strikes,)."""

    onsets: Onsets
    logits: Tensor
    features: Tensor
    loudness_db: Tensor


class Ear:
    """Listens to sounds at the strikes of their clips."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def hear(self, samples: Tensor, clip: WorldClip) -> Heard:
        """``samples`` (N,) at the clip's rate, at any level."""
        times_s = [strike.time_s for strike in strikes_of(clip)]
        samples, rate_hz = at_peak(samples.float().cpu()), clip.sample_rate_hz
        patches = mel_patches(resample(samples, rate_hz, AUDIO_16K.sample_rate_hz), times_s)
        logits, features = self._classifier.judge(patches)
        return Heard(detect_onsets(samples, rate_hz), logits, features, loudness_db(samples, rate_hz, times_s))


def scores(strikes: Sequence[Sequence[Event]], heard: Sequence[Heard], truth: Sequence[Heard]) -> dict[str, float]:
    """KEYS, of clips with ``strikes``, of what is heard in a line's sounds and in the true ones, clip by clip.

    Raises:
        InputError: when there are fewer than two strikes in all.
    """
    kept = [k for k, events in enumerate(strikes) if events]
    strikes, heard, truth = ([of[k] for k in kept] for of in (strikes, heard, truth))  # type: ignore[assignment]
    events = [event for one in strikes for event in one]
    if len(events) < 2:
        raise InputError(f"The clips hold {len(events)} strikes; take more clips, 2 strikes are the least.")
    logits, features = (torch.cat([getattr(one, name) for one in heard]) for name in ("logits", "features"))
    materials = torch.tensor([MATERIALS.index(event.material) for event in events])
    exact = [([event.time_s for event in one], sound.onsets) for one, sound in zip(strikes, heard, strict=True)]
    as_heard = [(true.onsets.times_s, sound.onsets) for true, sound in zip(truth, heard, strict=True)]
    return {
        **_onsets(exact),
        "material_accuracy": float((logits.argmax(1) == materials).double().mean()),
        "frechet_distance": max(0.0, frechet_distance(features, torch.cat([one.features for one in truth]))),
        "kl": kl_divergence(logits, torch.cat([one.logits for one in truth])),
        "loudness_correlation": loudness_correlation(strikes, [one.loudness_db for one in heard]),
        **{f"heard_{key}": value for key, value in _onsets(as_heard).items()},
        **{f"heard_as_{m}": float((logits.argmax(1) == k).double().mean()) for k, m in enumerate(MATERIALS)},
    }


def _onsets(clips: Sequence[Clip]) -> dict[str, float]:
    values = (
        onset_scores(clips, STRICT_WINDOW_S).f1,
        onset_scores(clips, PAPER_WINDOW_S).f1,
        onset_count_match(clips),
        onset_average_precision(clips, PAPER_WINDOW_S),
    )
    return dict(zip(ONSET_KEYS, values, strict=True))


def loudness_correlation(strikes: Sequence[Sequence[Event]], loudness: Sequence[Tensor]) -> float:
    """Of strength and loudness in dB (strikes,) of each clip, among its strikes on one material; 0 where nothing varies."""
    pairs = list(_deviations(strikes, loudness))
    if not pairs:
        return 0.0
    a, b = (torch.cat(values) for values in zip(*pairs, strict=True))
    size = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / size if size > 1e-9 else 0.0


def _deviations(strikes: Sequence[Sequence[Event]], loudness: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for events, levels_db in zip(strikes, loudness, strict=True):
        strength_db = 20 * torch.log10(torch.tensor([event.strength for event in events], dtype=torch.float64))
        for material in sorted({event.material for event in events}):
            same = torch.tensor([event.material == material for event in events])
            yield strength_db[same] - strength_db[same].mean(), levels_db[same].double() - levels_db[same].double().mean()
