"""How sync tokens are laid over the sound: stretched as published, or steady at the pace of 8 s."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.features.segments import frames_to_encode
from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K, AudioSpec
from mmaudio_core.spec.model import VARIANTS, FlowSpec
from mmaudio_core.spec.timing import (
    check_sync_timing,
    segment_frames,
    segments_to_encode,
    sequence_lengths,
    steady_pace,
    sync_segments,
)
from mmaudio_core.transformer.conditions import sync_index
from mmaudio_core.types import Features
from mmaudio_core.weights.detect import read_spec

from .test_flow_network import SPEC, network

AUDIOS = pytest.mark.parametrize("audio", [AUDIO_16K, AUDIO_44K], ids=lambda a: a.name)
DURATIONS_S = (0.64, 1.0, 1.7, 3.2, 4.0, 5.06, 7.9, 8.0, 8.1, 10.0, 16.0, 29.97, 61.0)


def index_of(duration_s: float, audio: AudioSpec, timing: str) -> torch.Tensor:
    lengths = sequence_lengths(duration_s, audio, timing)  # type: ignore[arg-type]
    return sync_index(lengths.sync, lengths.latent, steady_pace(audio) if timing == "steady" else None)


@AUDIOS
def test_at_eight_seconds_both_are_the_same(audio: AudioSpec) -> None:
    steady, stretched = (sequence_lengths(8.0, audio, timing) for timing in ("steady", "stretched"))
    assert replace(steady, sync_timing="stretched") == stretched
    assert torch.equal(index_of(8.0, audio, "steady"), index_of(8.0, audio, "stretched"))


@AUDIOS
@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_steady_takes_what_eight_seconds_take_and_no_token_too_many(duration_s: float, audio: AudioSpec) -> None:
    steady, known = index_of(duration_s, audio, "steady"), index_of(8.0, audio, "steady")
    tokens, of = steady_pace(audio)
    for first in range(0, len(steady), of):
        piece = steady[first : first + of]
        # float32 may put a token a row lower far from the beginning, where (i + 0.5) S / L is a whole number (trap R1).
        apart = piece - first // of * tokens - known[: len(piece)]
        assert set(apart.tolist()) <= ({0} if first == 0 else {-1, 0, 1})
    lengths = sequence_lengths(duration_s, audio, "steady")
    assert lengths.sync - 8 <= int(steady.max()) + 1 <= lengths.sync
    assert replace(lengths, sync=0, sync_timing="stretched") == replace(sequence_lengths(duration_s, audio), sync=0)


@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_what_is_encoded_serves_either_timing(duration_s: float) -> None:
    segments = segments_to_encode(duration_s)
    counts = [sequence_lengths(duration_s, a, t).sync for a in (AUDIO_16K, AUDIO_44K) for t in ("steady", "stretched")]
    assert segments == max(counts) // 8
    assert sync_segments(segment_frames(segments)) == segments
    seen = torch.arange(int(Fraction(25) * Fraction(duration_s))).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    given = frames_to_encode(seen, duration_s)
    assert sync_segments(len(given)) >= segments
    assert torch.equal(given[: len(seen)], seen)
    assert (given[len(seen) :] == seen[-1]).all()


def test_eight_seconds_are_encoded_as_they_are() -> None:
    frames = torch.zeros(200, 3, 2, 2, dtype=torch.uint8)
    assert frames_to_encode(frames, 8.0) is frames


def drawn(tokens: int) -> Features:
    made = torch.Generator().manual_seed(5)
    clip = torch.randn(1, 32, SPEC.clip_dim, generator=made)
    return Features(clip, torch.randn(1, tokens, SPEC.sync_dim, generator=made), duration_s=4.0)


@pytest.mark.parametrize("timing", ["steady", "stretched"])
def test_only_the_tokens_of_the_timing_are_used(timing: str) -> None:
    """So that features with more of them make the published sound too."""
    net, settings = network(), SampleSettings(steps=2)
    wanted = sequence_lengths(4.0, AUDIO_16K, timing).sync  # type: ignore[arg-type]
    assert wanted == {"steady": 96, "stretched": 88}[timing]
    many = replace(drawn(120), sync_timing=timing)
    few = replace(many, sync=many.sync[:, :wanted])  # type: ignore[index]
    other = replace(many, sync=torch.cat((many.sync[:, : wanted - 8], many.sync[:, wanted:]), dim=1))  # type: ignore[index]
    made = [sample_latents(net, f, 4.0, [3], settings=settings).tokens for f in (many, few, other)]
    assert torch.equal(made[0], made[1])
    assert not torch.allclose(made[0], made[2])


def test_too_few_tokens_are_named() -> None:
    with pytest.raises(InputError, match=r"\(1, 88, 24\); this network and duration need \(1, 96, 24\)"):
        sample_latents(network(), replace(drawn(88), sync_timing="steady"), 4.0, [3])


@pytest.mark.parametrize("strength", [1.0, 4.5])
def test_the_fast_path_computes_the_same(strength: float) -> None:
    net, settings = network(), SampleSettings(steps=3, cfg_strength=strength)
    given = replace(drawn(96), sync_timing="steady")
    plain, fast = (
        sample_latents(net, given, 4.0, [3, 4], settings=settings, accelerator=Accelerator(Speed(kernels=kernels))).tokens
        for kernels in ("plain", "torch")
    )
    assert torch.allclose(plain, fast, atol=1e-3)
    stretched = sample_latents(net, replace(given, sync_timing="stretched"), 4.0, [3, 4], settings=settings).tokens
    assert not torch.allclose(plain, stretched, atol=1e-2)


def test_the_networks_own_timing_holds_where_none_is_asked_for() -> None:
    spec = replace(SPEC, sync_timing="steady")
    net = network(spec)
    assert net.lengths(4.0).sync_timing == "steady"
    assert net.lengths(4.0, "stretched") == sequence_lengths(4.0, AUDIO_16K)
    made, asked = (
        sample_latents(each, replace(drawn(96), sync_timing=timing), 4.0, [3], settings=SampleSettings(steps=2)).tokens
        for each, timing in ((net, None), (network(), "steady"))
    )
    assert torch.equal(made, asked)


def test_a_networks_timing_is_kept_in_its_metadata_alone() -> None:
    spec = replace(SPEC, sync_timing="steady")
    assert FlowSpec.from_dict(spec.to_dict()) == spec
    assert "sync_timing" not in SPEC.to_dict(), "as the published ones are written"
    assert "sync_timing steady" in spec.variant
    assert all(published.sync_timing == "stretched" for published in VARIANTS.values())
    shapes = {name: tuple(value.shape) for name, value in network(spec).state_dict().items()}
    assert read_spec("flow", shapes, spec.to_dict()) == spec
    assert read_spec("flow", shapes) == SPEC


def test_unknown_timings_are_named() -> None:
    check_sync_timing(None)
    with pytest.raises(InputError, match="'quick' is unknown; use stretched or steady"):
        check_sync_timing("quick")
