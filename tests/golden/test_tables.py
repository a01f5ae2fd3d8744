"""Token counts and scores, from the JSON files of the goldens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmaudio_core.metrics.distances import frechet_distance, inception_score, kl_divergence
from mmaudio_core.spec.audio import AUDIO_SPECS
from mmaudio_core.spec.timing import sequence_lengths

from .drawing import draw_formula, each_golden

SCORE = 1e-5


@each_golden("sequence_lengths*.json")
def test_sequence_lengths(path: Path) -> None:
    for row in json.loads(path.read_text()):
        audio = next(a for a in AUDIO_SPECS.values() if (a.sample_rate_hz, a.hop_samples) == (row["sampling_rate"], row["hop"]))
        lengths = sequence_lengths(row["duration"], audio)
        got = (lengths.latent, lengths.clip, lengths.sync, audio.samples_of_latents(lengths.latent))
        assert got == (row["latent"], row["clip"], row["sync"], row["audio_samples"]), row


@each_golden("metrics*.json")
def test_metrics(path: Path) -> None:
    golden = json.loads(path.read_text())
    a, b, generated, truth = (
        draw_formula(golden["seed"], golden[key], n=golden["n"]) for key in ("a", "b", "logits_a", "logits_b")
    )
    assert frechet_distance(a, b) == pytest.approx(golden["fd"], rel=SCORE)
    assert kl_divergence(generated, truth) == pytest.approx(golden["kl"]["kl_softmax"], rel=SCORE)
    assert kl_divergence(generated, truth, "sigmoid") == pytest.approx(golden["kl"]["kl_sigmoid"], rel=SCORE)
    score = inception_score(generated)
    assert score.mean == pytest.approx(golden["isc"]["inception_score_mean"], rel=SCORE)
    assert score.std == pytest.approx(golden["isc"]["inception_score_std"], rel=SCORE)
