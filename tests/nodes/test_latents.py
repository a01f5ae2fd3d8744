"""Latent nodes: empty ones, those of a sound, masks in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .host import TINY, Host
from .made_up import SPECS_44K, tone, write_44k, write_part


@pytest.fixture
def model(host: Host) -> Any:
    return host.run("LoadModel", model_file=TINY)[0]


@pytest.fixture
def vae(host: Host) -> Any:
    return host.run("LoadVAE", vae_file=TINY, vocoder_file=TINY)[0]


def test_an_empty_latent(host: Host, model: Any) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=2.4, batch_size=3)[0]
    assert latent["samples"].shape == (3, 20, 75)
    assert not latent["samples"].any()
    assert latent["type"] == "audio"
    assert host.of("nodes.latent").latent_duration(latent) == 2.4


def test_the_model_says_the_sample_rate(host: Host) -> None:
    write_part(host.models / "flow.safetensors", SPECS_44K["flow"])
    model = host.run("LoadModel", model_file="flow.safetensors")[0]
    assert host.run("EmptyLatent", model=model)[0]["samples"].shape == (1, 40, 345)


def test_features_say_the_duration(host: Host, model: Any) -> None:
    features = host.of("mmaudio_core.types").Features(duration_s=1.23)
    latent = host.run("EmptyLatent", model=model, duration_s=5.0, features=features)[0]
    assert host.of("nodes.latent").latent_duration(latent) == 1.23
    still = host.of("mmaudio_core.types").Features(clip=torch.zeros(1, 1, 64))
    latent = host.run("EmptyLatent", model=model, duration_s=5.0, features=still)[0]
    assert host.of("nodes.latent").latent_duration(latent) == 5.0


def test_a_latent_that_a_node_cut_gets_the_roundest_duration(host: Host, model: Any) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    latent["samples"] = latent["samples"][..., :63]
    assert host.of("nodes.latent").latent_duration(latent) == 2.0


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 4, 64, 64), r"shape \(1, 4, 64, 64\); MMAudio's are \(batch, channels, tokens\)"),
        ((1, 64, 80), "width of 64 belongs"),
    ],
)
def test_latents_of_other_models(host: Host, vae: Any, shape: tuple[int, ...], words: str) -> None:
    for node, inputs in (("Decode", {"vae": vae}), ("RegenerateSeconds", {"end_s": 1.0})):
        with pytest.raises(ValueError, match=words):
            host.run(node, latent={"samples": torch.zeros(shape)}, **inputs)


def test_a_sounds_latent(host: Host, vae: Any) -> None:
    latent = host.run("EncodeAudio", audio=tone(2.0), vae=vae)[0]
    assert latent["samples"].shape == (1, 20, 63)
    assert host.of("nodes.latent").latent_duration(latent) == 2.0
    assert latent["samples"].std() > 1e-3
    batch = host.run("EncodeAudio", audio=tone(1.0, 44_100, batch=3, channels=2), vae=vae)[0]
    assert batch["samples"].shape == (3, 20, 32)
    assert not torch.allclose(batch["samples"][0], batch["samples"][1])


def test_a_duration_cuts_or_adds_silence(host: Host, vae: Any) -> None:
    own, shorter, longer = (
        host.run("EncodeAudio", audio=tone(2.0), vae=vae, duration_s=s)[0]["samples"] for s in (0.0, 1.0, 3.0)
    )
    assert [x.shape[2] for x in (own, shorter, longer)] == [63, 32, 94]
    followed = {**tone(3.0), "waveform": torch.nn.functional.pad(tone(2.0)["waveform"], (0, 16_000))}
    assert torch.allclose(longer, host.run("EncodeAudio", audio=followed, vae=vae)[0]["samples"], atol=1e-4)
    features = host.of("mmaudio_core.types").Features(duration_s=1.5)
    assert host.run("EncodeAudio", audio=tone(2.0), vae=vae, duration_s=3.0, features=features)[0]["samples"].shape[2] == 47


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (None, "There is no sound"),
        ({"waveform": torch.zeros(1, 1, 0), "sample_rate": 16_000}, r"shape \(1, 1, 0\)"),
        ({"waveform": torch.zeros(2, 16_000), "sample_rate": 16_000}, r"shape \(2, 16000\)"),
        (tone(0.3), r"at least 0\.64 s"),
        ({"waveform": torch.full((1, 1, 16_000), float("nan")), "sample_rate": 16_000}, "NaN"),
    ],
    ids=["none", "empty", "shape", "short", "nan"],
)
def test_unusable_sounds(host: Host, vae: Any, audio: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        host.run("EncodeAudio", audio=audio, vae=vae)


def test_sixteen_bit_sound_is_scaled(host: Host) -> None:
    to_audio = host.of("nodes.host.sounds").to_audio
    audio = to_audio({"waveform": torch.tensor([[[-32768, 16384]]], dtype=torch.int16), "sample_rate": 8000})
    assert audio.samples.tolist() == [[[-1.0, 0.5]]]


def regenerated(host: Host, latent: Any, start_s: float, end_s: float, feather_s: float = 0.0) -> Any:
    return host.run("RegenerateSeconds", latent=latent, start_s=start_s, end_s=end_s, feather_s=feather_s)[0]


def test_masks_have_exact_borders(host: Host, model: Any) -> None:
    """At 31.25 tokens a second token i lasts from i / 31.25 on: 0.96 s is where token 30 begins."""
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    mask = regenerated(host, latent, 0.96, 1.92)["noise_mask"]
    assert mask.shape == (1, 1, 125)
    assert mask.dtype == torch.float32
    assert mask[0, 0].nonzero().flatten().tolist() == list(range(30, 60))
    assert regenerated(host, latent, 0.95, 1.93)["noise_mask"][0, 0].nonzero().flatten().tolist() == list(range(29, 61))
    assert mask.unique().tolist() == [0, 1]


def test_zero_means_to_the_end(host: Host, model: Any) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    mask = regenerated(host, latent, 3.2, 0.0)["noise_mask"][0, 0]
    assert mask.nonzero().flatten().tolist() == list(range(100, 125))
    assert regenerated(host, latent, 0.0, 0.0)["noise_mask"].all()


def test_feather_falls_from_one_to_zero(host: Host, model: Any) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    mask = regenerated(host, latent, 1.6, 2.4, 0.32)["noise_mask"][0, 0]
    assert (mask[50:75] == 1).all()
    before, after = mask[:50], mask[75:].flip(0)
    for side in (before, after):
        rising = side[-10:]
        assert (rising.diff() > 0).all()
        assert 0.9 < rising[-1] <= 1
    assert (mask[:40] == 0).all()
    assert (mask[85:] == 0).all()


def test_spans_add_up(host: Host, model: Any) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    both = regenerated(host, regenerated(host, latent, 0.0, 0.32), 3.2, 3.52)
    assert both["noise_mask"][0, 0].nonzero().flatten().tolist() == [*range(10), *range(100, 110)]
    assert host.of("nodes.latent").latent_duration(both) == 4.0
    assert "noise_mask" not in latent


@pytest.mark.parametrize(("start_s", "end_s"), [(2.0, 1.0), (1.0, 1.0), (9.0, 10.0), (4.0, 0.0)])
def test_spans_outside_of_the_sound(host: Host, model: Any, start_s: float, end_s: float) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    with pytest.raises(ValueError, match=r"The span from .* was given for 4\.00 s of sound; give one within it"):
        regenerated(host, latent, start_s, end_s)


def test_a_mask_of_another_latent_is_refused(host: Host, model: Any) -> None:
    latent = host.run("EmptyLatent", model=model, duration_s=4.0)[0]
    with pytest.raises(ValueError, match=r"mask has shape .* is needed"):
        regenerated(host, {**latent, "noise_mask": torch.ones(1, 64, 64)}, 0.0, 1.0)


def test_a_vae_of_the_44k_model(host: Host) -> None:
    write_44k(host.models)
    vae = host.run("LoadVAE", vae_file="vae_44k.safetensors", vocoder_file="vocoder_44k.safetensors")[0]
    assert host.run("EncodeAudio", audio=tone(1.0), vae=vae)[0]["samples"].shape == (1, 40, 44)
    with pytest.raises(ValueError, match=r"is a 44k one and the vocoder .* a 16k one; choose two of the same rate"):
        host.run("LoadVAE", vae_file="vae_44k.safetensors", vocoder_file=TINY)
    with pytest.raises(ValueError, match="connect the output of 'MMAudio: Load VAE'"):
        host.run("EncodeAudio", audio=tone(1.0), vae=object())
