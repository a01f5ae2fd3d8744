"""Token counts."""

from __future__ import annotations

import math

import pytest

from mmaudio_core.errors import InputError, SpecError
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K, audio_for_latent_dim
from mmaudio_core.spec.model import VARIANTS, FlowSpec
from mmaudio_core.spec.timing import sequence_lengths


def test_eight_seconds() -> None:
    assert [sequence_lengths(8, a).latent for a in (AUDIO_16K, AUDIO_44K)] == [250, 345]
    assert AUDIO_44K.samples_of_latents(345) == 353_280


@pytest.mark.parametrize("duration_s", [0.64, 1.0, 3.2, 7.999, 8.0, 30.0, 61.7])
@pytest.mark.parametrize("audio", [AUDIO_16K, AUDIO_44K], ids=lambda a: a.name)
def test_the_sound_is_never_shorter_than_asked(duration_s: float, audio) -> None:
    lengths = sequence_lengths(duration_s, audio)
    assert audio.samples_of_latents(lengths.latent) >= round(duration_s * audio.sample_rate_hz) - 1
    assert lengths.sync >= 8
    assert lengths.clip >= 5


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 0.63, math.nan, math.inf])
def test_impossible_durations(duration_s: float) -> None:
    with pytest.raises(InputError, match=r"at least 0\.64 s"):
        sequence_lengths(duration_s, AUDIO_16K)


def test_specs_refuse_nonsense() -> None:
    with pytest.raises(SpecError, match="16 kHz"):
        audio_for_latent_dim(32)
    with pytest.raises(SpecError, match="heads"):
        FlowSpec(20, 100, 2, 1, 1)
    with pytest.raises(SpecError, match="unknown keys"):
        FlowSpec.from_dict({**VARIANTS["small_16k"].to_dict(), "colour": 1})
    with pytest.raises(SpecError, match="incomplete"):
        FlowSpec.from_dict({"latent_dim": 20})


def test_specs_survive_their_dictionary() -> None:
    for spec in VARIANTS.values():
        assert FlowSpec.from_dict(spec.to_dict()) == spec
        assert spec.variant in VARIANTS
