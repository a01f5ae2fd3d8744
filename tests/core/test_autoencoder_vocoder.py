"""VAE, mel analysis and vocoder: properties, half precision, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.errors import InputError
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K, AudioSpec
from mmaudio_core.spec.model import VAESpec, VocoderSpec
from mmaudio_core.vocoder.bigvgan import BigVGAN
from mmaudio_core.vocoder.chunked import context_frames, vocode
from mmaudio_core.vocoder.filters import kaiser_sinc

from .precision import needs

VOCODERS = {
    "16k": VocoderSpec(80, 64, (4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4)),
    "44k": VocoderSpec(128, 64, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final_bias=False, final_tanh=False),
}


def vocoder_of(spec: VocoderSpec) -> BigVGAN:
    torch.manual_seed(0)
    return BigVGAN(spec).eval().requires_grad_(False)


def vae_of(width: int = 16) -> VAE:
    torch.manual_seed(0)
    vae = VAE(VAESpec(80, 20, width)).eval().requires_grad_(False)
    vae.encoder.learnable_gain.fill_(0.3)
    return vae


def test_kaiser_sinc_is_the_published_filter() -> None:
    taps = kaiser_sinc()
    assert taps.sum().item() == pytest.approx(1)
    assert torch.allclose(taps, taps.flip(0))
    # Kaiser's beta for these filters, from the published description.
    window = torch.kaiser_window(12, periodic=False, beta=4.6638, dtype=torch.float64)
    time = torch.arange(-6, 6, dtype=torch.float64) + 0.5
    expected = window * torch.sinc(0.5 * time)
    assert torch.allclose(taps.double(), expected / expected.sum(), atol=1e-5)


@pytest.mark.parametrize("name", VOCODERS)
def test_chunks_give_the_samples_of_one_pass(name: str) -> None:
    spec = VOCODERS[name]
    vocoder = vocoder_of(spec)
    mel = torch.randn(1, spec.mel_bins, 131)
    whole = vocoder(mel)
    done: list[tuple[int, int]] = []
    pieces = vocode(vocoder, mel, frames_per_chunk=40, progress=lambda *x: done.append(x))
    assert pieces.shape == (1, 1, 131 * math.prod(spec.rates))
    assert (pieces - whole).abs().max() <= 1e-6 * max(1.0, whole.abs().max().item())
    assert done[-1] == (131, 131)


@pytest.mark.parametrize("name", VOCODERS)
def test_a_smaller_context_would_not_do(name: str) -> None:
    """A mel frame that is not a number reaches exactly the samples of so many frames to either side."""
    spec = VOCODERS[name]
    context = context_frames(spec)
    assert context == {"16k": 38, "44k": 21}[name]
    middle, hop = context + 5, math.prod(spec.rates)
    mel = torch.randn(1, spec.mel_bins, 2 * middle + 1)
    mel[..., middle] = torch.nan
    samples = vocoder_of(spec)(mel)[0, 0].isnan().nonzero().flatten()
    assert (samples.min() // hop, samples.max() // hop) == (middle - context, middle + context)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_decoding_stays_near_float32(dtype: torch.dtype, relative: float) -> None:
    """Tolerances of docs/numerics.md, relative to the norm."""
    needs(dtype)
    vae, vocoder = vae_of(), vocoder_of(VOCODERS["16k"])
    latents, mel = torch.randn(1, 20, 20), torch.randn(1, 80, 40)
    exact_mel, exact_samples = vae.decode(latents), vocoder(mel)
    half_mel, half_samples = vae.to(dtype).decode(latents).float(), vocoder.to(dtype)(mel).float()
    assert ((half_mel - exact_mel).norm() / exact_mel.norm()).item() < relative
    assert ((half_samples - exact_samples).norm() / exact_samples.norm()).item() < relative


def test_folding_changes_no_number_and_happens_once() -> None:
    vae = vae_of()
    mel, latents = torch.randn(1, 80, 16), torch.randn(1, 8, 20)
    before = vae.encode(mel), vae.decode(latents)
    vae.fold_weights_().fold_weights_()
    after = vae.encode(mel), vae.decode(latents)
    assert torch.allclose(before[0].mean, after[0].mean, atol=1e-5)
    assert torch.allclose(before[0].std, after[0].std, atol=1e-5)
    assert torch.allclose(before[1], after[1], atol=1e-5)


def test_latent_distribution() -> None:
    posterior = vae_of().encode(torch.randn(2, 80, 16))
    noise = torch.randn_like(posterior.mean)
    assert posterior.mean.shape == (2, 8, 20)
    assert (posterior.std > 0).all()
    assert torch.equal(posterior.sample(noise), posterior.mean + posterior.std * noise)


def test_vae_trains() -> None:
    vae = vae_of().requires_grad_(True)
    posterior = vae.encode(torch.randn(1, 80, 16))
    vae.decode(posterior.sample(torch.randn(1, 8, 20))).square().mean().backward()
    assert [n for n, p in vae.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("audio", [AUDIO_16K, AUDIO_44K], ids=lambda a: a.name)
def test_a_tone_lands_in_its_mel_bin(audio: AudioSpec) -> None:
    time = torch.arange(audio.sample_rate_hz) / audio.sample_rate_hz
    mel = MelAnalysis(audio)((0.5 * torch.sin(2 * math.pi * 1000 * time))[None])
    assert mel.shape == (1, audio.mel_bins, audio.sample_rate_hz // audio.hop_samples)
    centre = MelAnalysis(audio).filters[mel.mean(-1).argmax()].argmax().item() * audio.sample_rate_hz / audio.n_fft
    assert abs(centre - 1000) < 60


def test_mel_clamps_the_waveform_first() -> None:
    analysis, loud = MelAnalysis(AUDIO_16K), 3 * torch.randn(1, 4096)
    assert torch.equal(analysis(loud), analysis(loud.clamp(-1, 1)))


def test_wrong_shapes_are_named() -> None:
    vae = vae_of()
    with pytest.raises(InputError, match="80, frames"):
        vae.encode(torch.zeros(1, 128, 16))
    with pytest.raises(InputError, match="even number"):
        vae.encode(torch.zeros(1, 80, 15))
    with pytest.raises(InputError, match="16k VAE"):
        vae.decode(torch.zeros(1, 8, 40))
    with pytest.raises(InputError, match="16k vocoder"):
        vocoder_of(VOCODERS["16k"])(torch.zeros(1, 128, 8))
    with pytest.raises(InputError, match="samples at 16000 Hz"):
        MelAnalysis(AUDIO_16K)(torch.zeros(1, 100))
