"""MMAudio: Decode, the VAE in ComfyUI's own nodes, and sound under a video."""

from __future__ import annotations

import io
import logging
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.media.video import probe_video

from .host import TINY, Host
from .made_up import pictures, tone, write_44k

VIDEO_S = 1.6


@pytest.fixture
def vae(host: Host) -> Any:
    return host.run("LoadVAE", vae_file=TINY, vocoder_file=TINY)[0]


@pytest.fixture
def vae_44k(host: Host) -> Any:
    write_44k(host.models)
    return host.run("LoadVAE", vae_file="vae_44k.safetensors", vocoder_file="vocoder_44k.safetensors")[0]


def latent(host: Host, channels: int, tokens: int, duration_s: float, batch: int = 1) -> dict[str, Any]:
    made = torch.Generator().manual_seed(2)
    return host.of("nodes.latent").make_latent(torch.randn(batch, channels, tokens, generator=made), duration_s)


@pytest.mark.parametrize(("duration_s", "tokens"), [(0.64, 20), (1.0, 32), (1.23, 39)])
def test_16k_sound_is_exactly_as_long(host: Host, vae: Any, duration_s: float, tokens: int) -> None:
    out = host.run("Decode", latent=latent(host, 20, tokens, duration_s), vae=vae)
    audio, picture = out.args
    assert audio["sample_rate"] == 16_000
    assert audio["waveform"].shape == (1, 1, round(duration_s * 16_000))
    assert audio["waveform"].std() > 1e-5
    assert picture.ndim == 4
    assert set(out.ui) == {"audio", "images", "animated"}


def test_44k_sound_is_exactly_as_long(host: Host, vae_44k: Any) -> None:
    audio = host.run("Decode", latent=latent(host, 40, 35, 0.8, batch=2), vae=vae_44k)[0]
    assert audio["sample_rate"] == 44_100
    assert audio["waveform"].shape == (2, 1, 35_280)
    assert audio["waveform"].isfinite().all()
    assert host.fake("comfy.model_management").loaded[-1][2]  # as a whole: plain layers


@pytest.mark.parametrize("channels", [40, 20])
def test_a_latent_of_the_other_sample_rate(host: Host, vae: Any, vae_44k: Any, channels: int) -> None:
    wrong, words = (vae, "has 40 channels and the 16k VAE of MMAudio needs 20") if channels == 40 else (
        vae_44k, "has 20 channels and the 44k VAE of MMAudio needs 40")  # fmt: skip
    with pytest.raises(ValueError, match=f"{words}; load the VAE and vocoder of the model's sample rate") as caught:
        host.run("Decode", latent=latent(host, channels, 40, 0.8), vae=wrong)
    assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match=r"shape \(1, .*\) was given to a .* VAE of MMAudio"):
        wrong.decode(torch.zeros(1, channels, 40))


def test_a_vae_of_another_model(host: Host) -> None:
    class Other:
        first_stage_model = torch.nn.Identity()

    with pytest.raises(ValueError, match="The VAE is a Identity, not MMAudio's; connect"):
        host.run("Decode", latent=latent(host, 20, 32, 1.0), vae=Other())


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_the_hosts_own_nodes_work_at_44100(host: Host, rate: str, request: pytest.FixtureRequest) -> None:
    """VAEDecodeAudio and VAEEncodeAudio take and give 44.1 kHz."""
    vae = request.getfixturevalue("vae" if rate == "16k" else "vae_44k")
    channels, own_hz = (20, 16_000) if rate == "16k" else (40, 44_100)
    start = latent(host, channels, 32, 32 * 2 * (256 if rate == "16k" else 512) / own_hz, batch=2)
    sound = vae.decode(start["samples"])
    samples = 32 * 2 * (256 if rate == "16k" else 512) * 44_100 / own_hz
    assert sound.shape == (2, math.ceil(samples), 1)
    ours = host.run("Decode", latent=start, vae=vae)[0]["waveform"]
    if rate == "44k":
        assert torch.allclose(sound.movedim(-1, 1), ours, atol=1e-5)
    assert abs(math.log(sound.std() / ours.std())) < 0.1
    assert vae.encode(sound).shape == (2, channels, 32)
    assert vae.encode(torch.zeros(1, round(0.64 * 44_100), 1)).shape[2] == math.ceil(
        0.64 * own_hz / (512 if rate == "16k" else 1024)
    )
    assert (vae.latent_channels, vae.latent_dim, vae.audio_sample_rate) == (channels, 1, 44_100)
    assert vae.upscale_ratio == pytest.approx(samples / 32)


def test_stereo_is_averaged(host: Host, vae: Any) -> None:
    stereo = torch.stack((tone(1.0, 44_100)["waveform"][0, 0], torch.zeros(44_100)), dim=-1)[None]
    mono = stereo.mean(dim=-1, keepdim=True)
    assert torch.allclose(vae.encode(stereo), vae.encode(mono), atol=1e-5)
    ours = host.run("EncodeAudio", audio={"waveform": stereo.movedim(-1, 1), "sample_rate": 44_100}, vae=vae)[0]["samples"]
    assert torch.allclose(vae.encode(stereo), ours, atol=1e-5)
    with pytest.raises(ValueError, match=r"at least 0\.64 s") as caught:
        vae.encode(stereo[:, :10_000])
    assert type(caught.value) is ValueError


def test_precision_of_the_vae(host: Host) -> None:
    vae = host.run("LoadVAE", vae_file=TINY, vocoder_file=TINY, precision="bf16")[0]
    assert vae.vae_dtype == torch.bfloat16
    assert {p.dtype for p in vae.module.parameters()} == {torch.bfloat16}
    assert host.run("Decode", latent=latent(host, 20, 32, 1.0), vae=vae)[0]["waveform"].dtype == torch.float32


# Sound under a video.


def level_db(samples: torch.Tensor, rate_hz: int, hz: float) -> float:
    """Level of one frequency in dB; a sine of amplitude 1 is 0 dB."""
    t = torch.arange(samples.shape[-1], dtype=torch.float64) / rate_hz
    part = (samples.double() * torch.exp(-2j * math.pi * hz * t)).mean(dim=-1).abs().max()
    return 20 * math.log10(max(2 * float(part), 1e-9))


@pytest.fixture(scope="module")
def with_tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.6 s of pictures with a tone of 200 Hz."""
    folder = tmp_path_factory.mktemp("video")
    frames = (pictures(40) * 255).to(torch.uint8).numpy()
    silent = write_silent_video(iter(frames), 25, folder / "silent.mp4")
    sound = tone(VIDEO_S)
    mux_audio(silent, (sound["waveform"], 16_000), folder / "tone.mp4")
    return folder / "tone.mp4"


def new_sound(batch: int = 1) -> dict[str, Any]:
    """400 Hz, and 600 Hz as the second of a batch."""
    both = tone(VIDEO_S, batch=3)
    return {**both, "waveform": both["waveform"][1 : 1 + batch]}


def sound_of(video: Any) -> tuple[torch.Tensor, int]:
    source = getattr(video, "get_stream_source", None)
    if source is not None:
        audio = load_sound(source())
        return audio.samples, audio.sample_rate_hz
    audio = video.get_components().audio
    return audio["waveform"], audio["sample_rate"]


def levels(video: Any) -> list[float]:
    samples, rate_hz = sound_of(video)
    return [level_db(samples, rate_hz, hz) for hz in (200.0, 400.0)]


EXPECTED = {"replace": (False, True), "mix": (True, True), "duck": (True, True)}


@pytest.mark.parametrize("kind", ["file", "bytes", "components"])
@pytest.mark.parametrize("mode", list(EXPECTED))
def test_modes(host: Host, with_tone: Path, mode: str, kind: str) -> None:
    if kind == "components":
        video = host.components(pictures(40), Fraction(25), tone(VIDEO_S))
    else:
        video = host.file(with_tone if kind == "file" else io.BytesIO(with_tone.read_bytes()))
    out = host.run("CombineVideoAudio", video=video, audio=new_sound(), original_sound=mode)[0]
    found = levels(out)
    alone = 20 * math.log10(0.3)
    for level, there in zip(found, EXPECTED[mode], strict=True):
        assert (level > alone - 20) == there, found
    if mode == "duck":
        assert found[0] == pytest.approx(alone - 12, abs=2)
    if mode == "mix":
        assert found == pytest.approx([alone, alone], abs=1)
    assert sound_of(out)[0].shape[-1] / sound_of(out)[1] == pytest.approx(VIDEO_S, abs=0.05)
    if kind == "components":
        assert torch.equal(out.get_components().images, pictures(40))
        assert out.get_components().frame_rate == 25
    else:
        assert Path(out.get_stream_source()).parent == host.tmp / "temp"
        assert probe_video(out.get_stream_source()).duration_s == pytest.approx(VIDEO_S, abs=0.01)


@pytest.mark.parametrize("as_file", [True, False])
def test_keep_is_the_video_itself(host: Host, with_tone: Path, as_file: bool) -> None:
    video = host.file(with_tone) if as_file else host.components(pictures(40), Fraction(25))
    assert host.run("CombineVideoAudio", video=video, audio=new_sound(), original_sound="keep")[0] is video


def test_gains_start_and_takes(host: Host) -> None:
    video = host.components(pictures(40), Fraction(25), tone(VIDEO_S))
    quiet = host.run(
        "CombineVideoAudio", video=video, audio=new_sound(), original_sound="mix", audio_gain_db=-6.0, original_gain_db=-12.0
    )[0]
    alone = 20 * math.log10(0.3)
    assert levels(quiet) == pytest.approx([alone - 12, alone - 6], abs=0.2)
    later, rate_hz = sound_of(host.run("CombineVideoAudio", video=video, audio=new_sound(), start_s=0.8)[0])
    assert not later[..., : round(0.79 * rate_hz)].any()
    assert torch.equal(later[..., round(0.8 * rate_hz) :], new_sound()["waveform"][..., : round(0.8 * rate_hz)])
    second = host.run("CombineVideoAudio", video=video, audio=new_sound(2), take=2)[0]
    assert torch.equal(sound_of(second)[0], new_sound(2)["waveform"][1:])


def test_a_sum_that_would_clip_is_lowered_with_a_word(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    video = host.components(pictures(40), Fraction(25), tone(VIDEO_S))
    with caplog.at_level(logging.WARNING, "mmaudio"):
        out = host.run("CombineVideoAudio", video=video, audio=new_sound(), original_sound="mix", audio_gain_db=12.0)[0]
    assert sound_of(out)[0].abs().max() <= 1
    assert "lowered by" in caplog.text


def test_a_video_without_sound(host: Host) -> None:
    video = host.components(pictures(40), Fraction(25))
    for mode in ("mix", "duck", "replace"):
        out = host.run("CombineVideoAudio", video=video, audio=new_sound(), original_sound=mode)[0]
        assert torch.equal(sound_of(out)[0], new_sound()["waveform"])


@pytest.mark.parametrize("take", [0, 3, -1])
def test_takes_that_are_not_there(host: Host, take: int) -> None:
    video = host.components(pictures(40), Fraction(25))
    with pytest.raises(ValueError, match=rf"Take {take} was asked for and there are 2; choose one from 1 to 2"):
        host.run("CombineVideoAudio", video=video, audio=new_sound(2), take=take)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"original_sound": "loud"}, "mode 'loud' is unknown; use one of replace, mix, duck, keep"),
        ({"audio": None}, "There is no sound"),
        ({"start_s": 9.0}, r"begin at 9 s of a video of 1\.6 s; begin within it"),
    ],
)
def test_unusable_combinations(host: Host, inputs: dict[str, Any], words: str) -> None:
    video = host.components(pictures(40), Fraction(25))
    with pytest.raises(ValueError, match=words):
        host.run("CombineVideoAudio", **{"video": video, "audio": new_sound(), **inputs})


def test_a_file_that_is_no_video(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(ValueError, match=r"notes\.mp4") as caught:
        host.run("CombineVideoAudio", video=host.file(path), audio=new_sound())
    assert type(caught.value) is ValueError


def test_a_container_that_mp4_does_not_hold(host: Host, tmp_path: Path) -> None:
    frames = (pictures(40) * 255).to(torch.uint8).numpy()
    if "libvpx" not in pytest.importorskip("av").codecs_available:
        pytest.skip("PyAV was built without VP8")
    path = write_silent_video(iter(frames), 25, tmp_path / "bar.webm", codec="libvpx")
    out = host.run("CombineVideoAudio", video=host.file(path), audio=new_sound())[0]
    assert out.get_stream_source().endswith(".mkv")
    assert levels(out)[1] == pytest.approx(20 * math.log10(0.3), abs=1)
