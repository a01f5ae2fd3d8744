"""Latents to sound and sound to latents: shapes, lengths, what is refused."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.pipeline.sound import decode_latents, encode_audio, vocode_mel
from mmaudio_core.spec.model import VAESpec, VocoderSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.types import Audio, Latents, Mel
from mmaudio_core.weights.build import build_module, load_part

DURATIONS_S = (0.64, 0.7, 1.0, 1.23)


def made_up_44k() -> tuple:
    torch.manual_seed(0)
    spec = VocoderSpec(128, 64, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final_bias=False, final_tanh=False)
    return tuple(build_module(s).eval().requires_grad_(False) for s in (VAESpec(128, 40, 16), spec))


@pytest.fixture(scope="module", params=["16k", "44k"])
def parts(request: pytest.FixtureRequest) -> tuple:
    """(VAE, vocoder) of each format."""
    if request.param == "44k":
        return made_up_44k()
    return tuple(load_part(EMBEDDED_FILE, kind, dtype=torch.float32)[0] for kind in ("vae", "vocoder"))


def noise(duration_s: float, rate_hz: int, batch: int = 1, channels: int = 1) -> Audio:
    made = torch.Generator().manual_seed(1)
    return Audio(0.1 * torch.randn(batch, channels, round(duration_s * rate_hz), generator=made), rate_hz)


@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_lengths_are_exact(parts: tuple, duration_s: float) -> None:
    vae, vocoder = parts
    audio = vae.spec.audio
    tokens = sequence_lengths(duration_s, audio).latent
    mel = decode_latents(vae, Latents(torch.randn(2, tokens, audio.latent_dim), duration_s))
    assert mel.values.shape == (2, audio.mel_bins, 2 * tokens)
    sound = vocode_mel(vocoder, mel)
    assert sound.sample_rate_hz == audio.sample_rate_hz
    assert sound.samples.shape == (2, 1, round(duration_s * audio.sample_rate_hz))


@pytest.mark.parametrize("duration_s", DURATIONS_S)
def test_there_and_back(parts: tuple, duration_s: float) -> None:
    vae, vocoder = parts
    audio = vae.spec.audio
    latents = encode_audio(vae, noise(duration_s, audio.sample_rate_hz, batch=2))
    assert latents.duration_s == pytest.approx(duration_s, abs=1e-4)
    assert latents.tokens.shape == (2, sequence_lengths(latents.duration_s, audio).latent, audio.latent_dim)
    assert latents.tokens.dtype == torch.float32
    back = vocode_mel(vocoder, decode_latents(vae, latents))
    assert back.samples.shape[-1] == noise(duration_s, audio.sample_rate_hz).samples.shape[-1]
    again = encode_audio(vae, back)
    assert again.tokens.shape == latents.tokens.shape


def test_a_longer_duration_is_silence(parts: tuple) -> None:
    vae, rate_hz = parts[0], parts[0].spec.audio.sample_rate_hz
    sound = noise(1.0, rate_hz)
    followed = Audio(torch.nn.functional.pad(sound.samples, (0, rate_hz)), rate_hz)
    assert torch.allclose(encode_audio(vae, sound, 2.0).tokens, encode_audio(vae, followed).tokens, atol=1e-5)


def test_a_shorter_duration_cuts(parts: tuple) -> None:
    """To whole tokens: what lies in the last one is heard even where the duration ends within it."""
    vae, audio = parts[0], parts[0].spec.audio
    sound = noise(2.0, audio.sample_rate_hz)
    tokens = sequence_lengths(1.0, audio).latent
    cut = Audio(sound.samples[..., : audio.samples_of_latents(tokens)], audio.sample_rate_hz)
    assert torch.allclose(encode_audio(vae, sound, 1.0).tokens, encode_audio(vae, cut).tokens[:, :tokens], atol=1e-5)


def test_channels_are_averaged_and_rates_changed(parts: tuple) -> None:
    vae, rate_hz = parts[0], parts[0].spec.audio.sample_rate_hz
    stereo = noise(1.0, rate_hz, channels=2)
    mono = Audio(stereo.samples.mean(dim=1, keepdim=True), rate_hz)
    assert torch.equal(encode_audio(vae, stereo).tokens, encode_audio(vae, mono).tokens)
    t = torch.arange(48_000) / 48_000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * t)[None, None]
    own = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(rate_hz) / rate_hz)[None, None]
    a, b = encode_audio(vae, Audio(tone, 48_000)).tokens, encode_audio(vae, Audio(own, rate_hz)).tokens
    assert a.shape == b.shape
    assert (a - b).norm() < 0.2 * b.norm()


def test_progress_counts_clips_and_frames(parts: tuple) -> None:
    vae, vocoder = parts
    seen: list[tuple[int, int]] = []
    latents = Latents(torch.randn(3, 40, vae.spec.audio.latent_dim), 0.9)
    mel = decode_latents(vae, latents, lambda *counts: seen.append(counts))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    vocode_mel(vocoder, mel, lambda *counts: seen.append(counts))
    assert seen[-1] == (240, 240)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("audio", "duration_s", "words"),
    [
        (Audio(torch.zeros(1, 16_000), 16_000), None, r"shape \(1, 16000\)"),
        (Audio(torch.zeros(1, 1, 0), 16_000), None, r"shape \(1, 1, 0\)"),
        (Audio(torch.full((1, 1, 16_000), float("inf")), 16_000), None, "NaN or infinite"),
        (noise(0.5, 16_000), None, r"at least 0\.64 s"),
        (noise(2.0, 16_000), 0.5, r"at least 0\.64 s"),
        (noise(2.0, 16_000), float("nan"), r"at least 0\.64 s"),
    ],
    ids=["dimensions", "empty", "infinite", "short", "duration", "nan"],
)
def test_unusable_sound(audio: Audio, duration_s: float | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        encode_audio(made_up_44k()[0], audio, duration_s)


def test_a_mel_of_the_other_format() -> None:
    with pytest.raises(InputError, match="80"):
        vocode_mel(made_up_44k()[1], Mel(torch.zeros(1, 80, 40), 0.64))
