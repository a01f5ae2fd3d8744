"""A video's own sound on the clock of its pictures, with its channels."""

from __future__ import annotations

import wave
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.media.resample import load_audio, resample
from mmaudio_core.media.soundtrack import has_sound, load_sound
from mmaudio_core.media.video import read_video

from .scenes import draw, media_folder, read_numbers, write_scene

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
CLICKS_S = (0.75, 1.5, 1.9)


def click_track(rate_hz: int, channels: int, from_s: float, until_s: float = 2.5) -> np.ndarray:
    """float32 (C, N), heard from ``from_s`` on, with clicks at ``CLICKS_S`` of the video."""
    samples = np.zeros((channels, round((until_s - from_s) * rate_hz)), np.float32)
    for click_s in CLICKS_S:
        samples[:, round((click_s - from_s) * rate_hz)] = 0.9
    return samples


def sound_packets(stream: av.AudioStream, samples: np.ndarray, rate_hz: int, from_s: float) -> list[av.Packet]:
    layout = LAYOUTS[len(samples)]
    converter = av.AudioResampler(format=stream.codec_context.format.name)
    packets: list[av.Packet] = []
    for start in range(0, samples.shape[1], 1024):
        block = np.ascontiguousarray(samples[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = start + round(from_s * rate_hz)
        for converted in converter.resample(frame):
            packets += stream.encode(converted)
    return packets + stream.encode(None)


def write_video(
    path: Path,
    samples: np.ndarray,
    rate_hz: int,
    codec: str = "aac",
    *,
    from_s: float = 0.0,
    first_frame: int = 0,
    options: dict[str, str] | None = None,
    lost: range = range(0),
) -> Path:
    """75 numbered frames at 25 fps from frame ``first_frame`` of the clock on, and ``samples`` (C, N) from ``from_s`` on.

    lost: sound packets that the file lacks.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w", options=options or {}) as container:
        pictures = container.add_stream("libvpx" if path.suffix == ".webm" else "libx264", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream(codec, rate=rate_hz)
        sound.codec_context.layout = LAYOUTS[len(samples)]
        packets: list[av.Packet] = []
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            frame.pts, frame.time_base = first_frame + number, Fraction(1, 25)
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        heard = sound_packets(sound, samples, rate_hz, from_s)
        packets += [packet for index, packet in enumerate(heard) if index not in lost]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def heard_s(samples: torch.Tensor, rate_hz: int) -> list[float]:
    """Instants of the clicks in (N,), one each."""
    loud = np.flatnonzero(samples.abs().numpy() > 0.3)
    first = [int(at) for before, at in pairwise([-rate_hz, *loud]) if at - before > rate_hz // 20]
    return [at / rate_hz for at in first]


def assert_clicks(path: Path, expected_s: tuple[float, ...] = CLICKS_S, within_s: float = 1e-3) -> torch.Tensor:
    audio = load_sound(path)
    for channel in audio.samples[0]:
        assert heard_s(channel, audio.sample_rate_hz) == pytest.approx(list(expected_s), abs=within_s)
    return audio.samples


@pytest.mark.parametrize("from_s", [0.0, 0.5])
@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize(
    ("ending", "codec"),
    [("mp4", "aac"), ("mkv", "aac"), ("mp4", "flac"), ("mkv", "flac"), ("mov", "pcm_s16le"), ("mp4", "alac"), ("mkv", "ac3")],
)
def test_a_click_is_where_the_video_has_it(ending: str, codec: str, rate_hz: int, from_s: float, tmp_path: Path) -> None:
    sound = click_track(rate_hz, 2, from_s)
    path = write_video(tmp_path / f"clip.{ending}", sound, rate_hz, codec, from_s=from_s)
    samples = assert_clicks(path)
    assert samples.dtype == torch.float32
    assert samples.shape[:2] == (1, 2)
    assert -1e-3 <= samples.shape[2] / rate_hz - 2.5 < 4096 / rate_hz
    assert float(samples[..., : int((from_s - 0.03) * rate_hz)].abs().sum() if from_s else 0.0) == 0.0
    if codec in ("flac", "alac", "pcm_s16le"):
        assert samples.shape[2] == round(2.5 * rate_hz)
        first = round(from_s * rate_hz)
        assert (samples[0, :, first:] - torch.from_numpy(sound)).abs().max() < 1e-4


def test_opus_and_its_own_rate(tmp_path: Path) -> None:
    for from_s in (0.0, 0.5):
        path = write_video(tmp_path / "clip.webm", click_track(48_000, 2, from_s), 48_000, "libopus", from_s=from_s)
        assert_clicks(path, within_s=2e-3)  # its pre-skip of 6.5 ms meets a clock of milliseconds


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "aac"), ("mkv", "flac"), ("ts", "aac"), ("mp4", "aac")])
def test_what_is_heard_before_the_pictures_is_cut(ending: str, codec: str, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / f"clip.{ending}",
        click_track(44_100, 1, -0.3),
        44_100,
        codec,
        from_s=-0.3,
        options={"avoid_negative_ts": "disabled"},
    )
    assert read_numbers(read_video(path, 1.0).sync[:1]) == [0]
    samples = assert_clicks(path)
    assert abs(samples.shape[2] / 44_100 - 2.5) < 0.03


def test_sound_that_is_over_before_the_pictures(tmp_path: Path) -> None:
    early = np.full((1, 8820), 0.5, np.float32)
    path = write_video(tmp_path / "clip.ts", early, 44_100, from_s=-0.4, options={"avoid_negative_ts": "disabled"})
    with pytest.raises(MediaError, match=r"sound of clip\.ts ends before its pictures"):
        load_sound(path)


def test_a_broadcast_clock_is_the_pictures_too(tmp_path: Path) -> None:
    base_s = 36_000.0
    late = click_track(48_000, 2, 0.5)
    path = write_video(tmp_path / "tv.ts", late, 48_000, from_s=base_s + 0.5, first_frame=int(base_s * 25))
    assert read_numbers(read_video(path, 1.0).sync[:1]) == [0]
    assert_clicks(path)


def test_pictures_that_start_late_move_nothing(tmp_path: Path) -> None:
    # Below and above half a second: the container starts with its sound, and that is 0 for the pictures as well.
    for first_frame in (10, 20):
        assert_clicks(write_video(tmp_path / "clip.mkv", click_track(48_000, 1, 0.0), 48_000, "flac", first_frame=first_frame))


@pytest.mark.parametrize(("codec", "lost"), [("aac", range(20, 21)), ("aac", range(5, 30)), ("flac", range(2, 6))])
def test_gaps_are_silent(codec: str, lost: range, tmp_path: Path) -> None:
    sound = click_track(48_000, 2, 0.0)
    samples = assert_clicks(write_video(tmp_path / "clip.mkv", sound, 48_000, codec, lost=lost))
    assert samples.shape[2] >= sound.shape[1]


@pytest.mark.parametrize("codec", ["aac", "flac", "pcm_s16le"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_stay_apart(codec: str, channels: int, tmp_path: Path) -> None:
    rate_hz = 48_000
    seconds = np.arange(2 * rate_hz) / rate_hz
    # The fourth channel of 5.1 carries the bass and is cut off above 120 Hz by encoders.
    tones_hz = [60 if channels == 6 and index == 3 else 440 * (index + 1) for index in range(channels)]
    sound = np.stack([np.sin(2 * np.pi * tone * seconds) * 0.4 for tone in tones_hz]).astype(np.float32)
    path = write_video(tmp_path / "clip.mkv", sound, rate_hz, codec)
    audio = load_sound(path)
    assert audio.samples.shape[:2] == (1, channels)
    assert audio.samples.is_contiguous()
    power = np.abs(np.fft.rfft(audio.samples[0, :, :rate_hz].numpy()))
    assert power.argmax(axis=1).tolist() == tones_hz
    for channel, own in zip(power, tones_hz, strict=True):
        assert all(channel[other] < 0.01 * channel[own] for other in tones_hz if other != own)
    mono, _ = load_audio(path)
    assert np.array_equal(audio.samples[0].numpy().mean(axis=0), mono.numpy())


def test_more_than_eight_channels_without_names(tmp_path: Path) -> None:
    counts = (np.arange(12 * 1000) % 30_000).astype("<i2")
    with wave.open(str(tmp_path / "stems.wav"), "wb") as file:
        file.setnchannels(12)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(counts.tobytes())
    audio = load_sound(tmp_path / "stems.wav")
    assert np.array_equal(audio.samples[0].numpy().T.reshape(-1) * 32768, counts)


def test_a_sound_file_starts_with_its_first_sample(tmp_path: Path) -> None:
    sound = click_track(44_100, 2, 0.0)
    exact = load_sound(save_audio((sound, 44_100), tmp_path / "sound.flac"))
    assert np.abs(exact.samples[0].numpy() - sound).max() < 1e-6
    if "libmp3lame" in av.codecs_available:
        with av.open(str(tmp_path / "sound.mp3"), "w") as container:
            stream = container.add_stream("libmp3lame", rate=44_100)
            stream.codec_context.layout = "stereo"
            for packet in sound_packets(stream, sound, 44_100, 0.0):
                container.mux(packet)
        # FFmpeg gives the first sample that is left of an mp3 the time of what it removed.
        assert_clicks(tmp_path / "sound.mp3")


def test_channels_and_rates_that_change_midway(tmp_path: Path) -> None:
    parts = [(2, 48_000, 0.0), (6, 48_000, 0.5), (1, 32_000, 1.0)]
    data = b""
    for channels, rate_hz, from_s in parts:
        part = tmp_path / f"{channels}.ts"
        sound = np.full((channels, rate_hz // 2), 0.25, np.float32)
        with av.open(str(part), "w", format="adts") as container:
            stream = container.add_stream("aac", rate=rate_hz)
            stream.codec_context.layout = LAYOUTS[channels]
            for packet in sound_packets(stream, sound, rate_hz, from_s):
                container.mux(packet)
        data += part.read_bytes()
    (tmp_path / "mixed.aac").write_bytes(data)
    audio = load_sound(tmp_path / "mixed.aac")
    assert (audio.samples.shape[1], audio.sample_rate_hz) == (2, 48_000)
    assert audio.duration_s == pytest.approx(1.5, abs=0.15)
    assert load_audio(tmp_path / "mixed.aac")[0].shape[0] == audio.samples.shape[2]


def test_resampling_keeps_the_clock_and_the_channels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", click_track(48_000, 2, 0.5), 48_000, from_s=0.5)
    whole = load_sound(path)
    lowered = load_sound(path, 16_000)
    assert (lowered.sample_rate_hz, lowered.samples.shape[1]) == (16_000, 2)
    assert torch.equal(lowered.samples, resample(whole.samples, 48_000, 16_000))
    assert lowered.duration_s == pytest.approx(whole.duration_s, abs=1e-3)
    with pytest.raises(InputError, match="above 0"):
        load_sound(path, 0)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_what_mux_audio_wrote_comes_back_aligned(ending: str, tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 75, 25)
    path = mux_audio(source, (click_track(44_100, 2, 0.0), 44_100), tmp_path / f"out.{ending}")
    assert_clicks(path)


def test_silent_and_broken_files(tmp_path: Path) -> None:
    silent = write_scene(tmp_path / "silent.mp4", 10, 25)
    assert not has_sound(silent)
    with pytest.raises(MediaError, match=r"silent\.mp4 holds no sound track"):
        load_sound(silent)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    for ask in (load_sound, has_sound):
        with pytest.raises(MediaError, match="not a readable"):
            ask(tmp_path / "noise.mp4")
        with pytest.raises(MediaError, match="no file"):
            ask(tmp_path / "missing.mp4")
    assert has_sound(mux_audio(silent, (np.zeros(16_000), 16_000), tmp_path / "toned.mp4"))
    assert has_sound(save_audio((np.zeros(16_000), 16_000), tmp_path / "sound.wav"))


def test_a_stamp_far_beyond_the_file_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmaudio_core.media import soundtrack as module

    path = write_video(tmp_path / "clip.mkv", click_track(48_000, 1, 0.0), 48_000, "flac")
    original = module.decode_sound

    def damaged(container: object, name: str) -> object:
        for index, block in enumerate(original(container, name)):
            start_s = Fraction(10**9) if index in (0, 3) else None if index == 5 else block.start_s
            yield module.SoundBlock(block.samples, block.sample_rate_hz, start_s)

    monkeypatch.setattr(module, "decode_sound", damaged)
    samples = assert_clicks(path)
    assert samples.shape[2] == 120_000


def test_real_recordings() -> None:
    for path in sorted(media_folder().glob("*.mp4")):
        if has_sound(path):
            audio = load_sound(path)
            video = read_video(path, None, clip_size=32, sync_size=32)
            assert abs(audio.duration_s - video.duration_s) < 0.5
            assert 0.001 < audio.samples.abs().max() < 2
