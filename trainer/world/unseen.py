"""Sounds that no clip shows, and strikes without a picture: what text alone can ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .noise import in_room, shaped_noise
from .plan import DURATION_S, draw_scene
from .sound import sound_of
from .streams import Streams
from .words import captions_of

UNSEEN = ("beeps", "siren", "clock", "telephone", "birds", "buzz", "whistle")
SAID = {
    "beeps": ("a machine beeps", "short beeps", "an alarm beeps"),
    "siren": ("a siren", "a siren rises and falls", "a police siren"),
    "clock": ("a clock ticks", "the ticking of a clock"),
    "telephone": ("a telephone rings", "an old telephone rings"),
    "birds": ("birds sing", "birds chirp in the morning"),
    "buzz": ("an insect buzzes", "a fly buzzes around"),
    "whistle": ("somebody whistles", "a whistle glides up"),
}
SEEN_SHARE = 0.5
"""Of the sounds without pictures, those of scenes that others show."""


@dataclass(frozen=True)
class WorldSound:
    """8 s of sound with words: ``samples`` (N,) float32 in [-1, 1] in steps of 16 bits; ``kind`` one of UNSEEN or of SCENES."""

    seed: int
    kind: str
    sample_rate_hz: int
    samples: np.ndarray
    captions: tuple[str, ...]


def make_sound(seed: int, sample_rate_hz: int = 16_000, kind: str | None = None) -> WorldSound:
    """The sound of a seed, one of UNSEEN or of a scene (``kind`` says which)."""
    streams = Streams(seed, "sound only")
    rng = streams("plan")
    if kind is None and rng.random() < SEEN_SHARE:
        scene = draw_scene(rng)
        samples, captions = sound_of(scene, sample_rate_hz, streams("sound")), captions_of(scene, streams("words"))
        return WorldSound(seed, scene.kind, sample_rate_hz, rounded(samples), captions)
    kind = str(rng.choice(UNSEEN)) if kind is None else kind
    voice = streams("sound")
    time_s = np.arange(round(DURATION_S * sample_rate_hz)) / sample_rate_hz
    wet = in_room(_dry(kind, time_s, sample_rate_hz, voice), sample_rate_hz, voice)
    wet += 10 ** (voice.uniform(-66, -52) / 20) * shaped_noise(len(wet), sample_rate_hz, 60.0, 4000.0, -2.0, voice)
    words = SAID[kind]
    order = streams("words").permutation(len(words))
    return WorldSound(seed, kind, sample_rate_hz, rounded(np.clip(wet, -1, 1)), tuple(words[i] for i in order))


def rounded(samples: np.ndarray) -> np.ndarray:
    """float64 -> float32 in steps of 2^-15: what rounding may differ by between machines is gone."""
    return np.asarray(np.clip(np.rint(samples * 32767), -32768, 32767) / 32768, dtype=np.float32)


def _dry(kind: str, time_s: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    hz, beat = float(rng.uniform(600, 1800)), float(rng.uniform(0.8, 3.0))
    phase = np.mod(time_s * beat + rng.uniform(), 1.0)
    if kind == "beeps":
        return 0.2 * _soft(phase < 0.4, rate_hz) * np.sin(2 * np.pi * hz * time_s)
    if kind == "siren":
        sweep = hz * (1 + 0.35 * np.sin(2 * np.pi * beat / 4 * time_s))
        return 0.2 * np.sin(2 * np.pi * np.cumsum(sweep) / rate_hz)
    if kind == "clock":
        since = phase / beat
        return 0.35 * np.exp(-since * 260) * np.sin(2 * np.pi * 2.2 * hz * since)
    if kind == "telephone":
        rings = np.mod(time_s / 2.4 + rng.uniform(), 1.0) < 0.5
        trill = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 22 * time_s))
        return 0.15 * _soft(rings, rate_hz) * (trill * np.sin(2 * np.pi * hz * time_s) + np.sin(2 * np.pi * 1.27 * hz * time_s))
    if kind == "birds":
        out = np.zeros_like(time_s)
        for at in rng.uniform(0, DURATION_S - 0.3, int(6 + 5 * beat)):
            here = (time_s >= at) & (time_s < at + 0.16)
            since = time_s[here] - at
            top = rng.uniform(2200, 4200)
            out[here] += 0.18 * np.sin(np.pi * since / 0.16) ** 2 * np.sin(2 * np.pi * (top * since - 3500 * since**2))
        return out
    if kind == "buzz":
        wobble = 150 + hz / 20 + 12 * np.sin(2 * np.pi * beat * time_s)
        turn = np.cumsum(wobble) / rate_hz
        return 0.14 * (0.6 + 0.4 * np.sin(2 * np.pi * 0.5 * beat * time_s)) * (2 * np.mod(turn, 1.0) - 1)
    glide = hz * (1 + 0.5 * phase)
    return 0.2 * _soft(phase < 0.7, rate_hz) * np.sin(2 * np.pi * np.cumsum(glide) / rate_hz)


def _soft(on: np.ndarray, rate_hz: int) -> np.ndarray:
    """0 and 1 with edges of 5 ms."""
    width = max(1, round(0.005 * rate_hz))
    return np.convolve(on.astype(np.float64), np.full(width, 1 / width), mode="same")
