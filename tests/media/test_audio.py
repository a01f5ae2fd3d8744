"""Sound files: exact counts, rates and values; resampling; loading."""

from __future__ import annotations

import math
import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.media import audio_out
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.resample import load_audio, resample
from mmaudio_core.types import Audio

from .scenes import media_folder, write_scene

STEP_24 = 1 / (1 << 23)


def noise(channels: int, count: int, level: float = 0.9) -> np.ndarray:
    return np.random.default_rng(count).uniform(-level, level, (channels, count)).astype(np.float32)


def decode_exact(path: Path) -> tuple[np.ndarray, int]:
    """float64 (C, N) straight from the file's integers."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        channels = stream.channels
        blocks = [frame.to_ndarray().reshape(-1, channels).T for frame in container.decode(stream)]
        return np.concatenate(blocks, axis=1) / float(1 << 31), stream.rate


@pytest.mark.parametrize("ending", [".flac", ".wav", ".FLAC"])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("count", [1, 4607, 4609, 65_537, 128_000])
def test_counts_rates_and_values_are_exact(ending: str, rate_hz: int, channels: int, count: int, tmp_path: Path) -> None:
    samples = noise(channels, count)
    path = save_audio(Audio(torch.from_numpy(samples)[None], rate_hz), tmp_path / f"sound{ending}")
    decoded, decoded_rate = decode_exact(path)
    assert (decoded.shape, decoded_rate) == ((channels, count), rate_hz)
    assert np.abs(decoded - samples).max() <= STEP_24 / 2
    assert os.listdir(tmp_path) == [path.name]


def test_24_bits_are_really_used(tmp_path: Path) -> None:
    fine = np.arange(-500, 500, dtype=np.float64) * STEP_24
    for ending in ("flac", "wav"):
        decoded, _ = decode_exact(save_audio((fine, 44_100), tmp_path / f"fine.{ending}"))
        assert np.array_equal(decoded[0], fine)


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_loud_samples_are_clamped(ending: str, tmp_path: Path) -> None:
    path = save_audio((np.array([1.5, 1.0, -1.0, -7.0, 0.25]), 16_000), tmp_path / f"loud.{ending}")
    decoded, _ = decode_exact(path)
    assert decoded[0].tolist() == [1 - STEP_24, 1 - STEP_24, -1.0, -1.0, 0.25]


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (Audio(torch.zeros(2, 1, 100), 16_000), "batch of 2"),
        ((np.zeros((9, 100)), 16_000), "1 to 8"),
        ((np.zeros((1, 0)), 16_000), "no samples"),
        ((np.array([0.0, np.nan]), 16_000), "NaN"),
        ((np.array([0.0, np.inf]), 16_000), "infinite"),
        ((np.zeros(100), 0), "sample rate of 0"),
        ((np.zeros(100), 22050.5), "sample rate of 22050.5"),
    ],
)
def test_unusable_sound(sound: object, words: str, tmp_path: Path) -> None:
    target = tmp_path / "old.wav"
    target.write_bytes(b"old")
    with pytest.raises(MediaError, match=words):
        save_audio(sound, target)  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["old.wav"]


@pytest.mark.parametrize("name", ["sound.mp3", "sound", "sound.flac.txt"])
def test_unknown_endings_list_the_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.flac, \.wav"):
        save_audio((np.zeros(10), 16_000), tmp_path / name)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        save_audio((np.zeros(10), 16_000), tmp_path / "nowhere" / "sound.wav")


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_an_interruption_leaves_nothing(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / f"sound.{ending}"
    save_audio((np.full(10, 0.5), 16_000), target)
    before = target.read_bytes()
    original = audio_out.audio_frames

    def interrupted(*args: object) -> object:
        yield next(original(*args))  # type: ignore[arg-type,call-overload]
        assert len(os.listdir(tmp_path)) == 2, "the temporary file should be there by now"
        raise KeyboardInterrupt

    monkeypatch.setattr(audio_out, "audio_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_audio((noise(2, 500_000), 44_100), target)
    assert os.listdir(tmp_path) == [target.name]
    assert target.read_bytes() == before


def test_resampling_keeps_a_tone() -> None:
    seconds = np.arange(44_100) / 44_100
    tone = torch.from_numpy(np.sin(2 * np.pi * 1000 * seconds)).float()
    lowered = resample(tone, 44_100, 16_000)
    assert lowered.shape == (16_000,)
    expected = torch.from_numpy(np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)).float()
    assert (lowered - expected)[400:-400].abs().max() < 1e-3
    high = torch.from_numpy(np.sin(2 * np.pi * 9000 * seconds)).float()
    assert resample(high, 44_100, 16_000)[400:-400].abs().max() < 1e-3, "what the lower rate cannot hold must go"


def test_resampling_uses_the_published_window() -> None:
    from torchaudio.functional import resample as reference

    samples = torch.from_numpy(noise(2, 4410))
    expected = reference(
        samples,
        44_100,
        16_000,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    assert torch.equal(resample(samples, 44_100, 16_000), expected)
    assert resample(samples, 16_000, 16_000) is samples
    with pytest.raises(InputError, match="above 0"):
        resample(samples, 0, 16_000)


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_loading_averages_channels(ending: str, tmp_path: Path) -> None:
    samples = noise(2, 10_000)
    path = save_audio((samples, 44_100), tmp_path / f"sound.{ending}")
    loaded, rate_hz = load_audio(path)
    assert (loaded.dtype, loaded.shape, rate_hz) == (torch.float32, (10_000,), 44_100)
    assert np.abs(loaded.numpy() - samples.mean(axis=0)).max() < 1e-6
    lowered, rate_hz = load_audio(path, 16_000)
    assert (lowered.shape[0], rate_hz) == (math.ceil(10_000 * 16_000 / 44_100), 16_000)


def test_loading_what_has_no_sound(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no sound track"):
        load_audio(write_scene(tmp_path / "silent.mp4", 10, 25), 16_000)
    (tmp_path / "noise.wav").write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(MediaError, match="not a readable audio file"):
        load_audio(tmp_path / "noise.wav", 16_000)


def test_a_real_recording() -> None:
    samples, rate_hz = load_audio(media_folder() / "00008004.flac", 16_000)
    assert rate_hz == 16_000
    assert samples.ndim == 1
    assert 0.01 < samples.abs().max() <= 1.2
