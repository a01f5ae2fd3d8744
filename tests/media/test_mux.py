"""New sound under untouched pictures: same bytes, same spacing, sound aligned to the sample."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.media import mux as mux_module
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import check_mux, mux_audio
from mmaudio_core.media.sound import audio_frames
from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.media.video import probe_video, read_video

from .scenes import HEIGHT, WIDTH, media_folder, read_numbers, scene, set_matrix, write_scene

SIZE = (HEIGHT, WIDTH)
CLICK_AT = 1000


def clicks(rate_hz: int, count: int, channels: int = 1) -> tuple[np.ndarray, int]:
    """A click every quarter of a second, from sample 1000 on."""
    samples = np.zeros((channels, count), np.float32)
    samples[:, CLICK_AT :: rate_hz // 4] = 0.8
    return samples, rate_hz


def video_packets(path: Path) -> list[tuple[bytes, Fraction, bool]]:
    """(bytes, shown at, keyframe) of every video packet, in decoding order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(bytes(p), p.pts * stream.time_base, p.is_keyframe) for p in container.demux(stream) if p.size]


def decoded_numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        images = [frame.to_rgb().to_ndarray()[:HEIGHT, 32:128] for frame in container.decode(video=0)]
    return read_numbers(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))


def decoded_sound(path: Path, track: int = 0) -> tuple[np.ndarray, int, float]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        frames = list(container.decode(stream))
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), stream.rate, float(frames[0].time)


def with_tone(path: Path) -> Path:
    """A copy of the video that has a sound track of its own."""
    tone = np.sin(np.arange(3 * 44_100) / 50) * 0.5
    return mux_audio(path, (tone, 44_100), path.with_name(f"toned{path.suffix}"))


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_aligned_and_exactly_long(ending: str, rate_hz: int, channels: int, tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 75, 25)
    for count in (3 * rate_hz, 2 * rate_hz + 331):
        path = mux_audio(source, clicks(rate_hz, count, channels), tmp_path / f"out.{ending}")
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            assert (stream.codec_context.name, stream.rate, stream.channels) == ("aac", rate_hz, channels)
            if ending != "mkv":  # Matroska states no length per track
                assert stream.duration * stream.time_base == Fraction(count, rate_hz)
                assert stream.start_time == 0
        sound, _, first_s = decoded_sound(path)
        assert 0 <= sound.shape[1] - count < 1024, "AAC comes in blocks of 1024; not one more"
        assert abs(first_s - float(video_packets(path)[0][1])) < 1e-3
        for at in range(CLICK_AT, count - 100, rate_hz // 4):
            peak = np.abs(sound[:, at - 90 : at + 90]).argmax(axis=1) - 90
            assert np.abs(peak).max() <= 2


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_channels_keep_their_order_and_their_number(channels: int, tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 25, 25)
    hz = 60 + 20 * np.arange(channels)[:, None]  # low ones, since the channel of the bass holds no others
    tones = 0.3 * np.sin(2 * np.pi * hz * np.arange(44_100) / 44_100)
    heard = load_sound(mux_audio(source, (tones, 44_100), tmp_path / "out.mkv")).samples[0].numpy()
    assert heard.shape[0] == channels
    peaks = np.abs(np.fft.rfft(heard[:, :44_100])).argmax(axis=1)
    assert peaks.tolist() == hz[:, 0].tolist()


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("bframes", [0, 3])
def test_packets_are_the_same_bytes_at_the_same_spacing(ending: str, bframes: int, tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 75, 25, options={"bf": str(bframes), "b_strategy": "0"})
    path = mux_audio(source, clicks(16_000, 48_000), tmp_path / f"out.{ending}")
    before, after = video_packets(source), video_packets(path)
    assert [packet[0] for packet in after] == [packet[0] for packet in before]
    assert [packet[2] for packet in after] == [packet[2] for packet in before]
    shift = after[0][1] - before[0][1]
    tolerance = Fraction(1, 1000) if ending == "mkv" else 0
    assert all(abs(b[1] + shift - a[1]) <= tolerance for a, b in zip(after, before, strict=True))
    assert decoded_numbers(path) == list(range(75))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("duration_s", [0.5, 1.0, 1.48, 2.04])
def test_the_cut_keeps_every_frame_shown_before_it(ending: str, duration_s: float, tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 75, 25, options={"bf": "3", "b_strategy": "0"})
    path = mux_audio(source, clicks(16_000, 16_000), tmp_path / f"out.{ending}", duration_s=duration_s)
    wanted = [k for k in range(75) if Fraction(k, 25) < Fraction(str(duration_s))]
    shown = decoded_numbers(path)
    assert shown[: len(wanted)] == wanted
    before, after = video_packets(source), video_packets(path)
    cut = before[0][1] + Fraction(str(duration_s))
    assert before[len(after) - 1][1] < cut, "whatever is shown later only follows because this packet needs it"
    assert len(shown) <= len(wanted) + 2
    assert [packet[0] for packet in after] == [packet[0] for packet in before[: len(after)]]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "webm"])
@pytest.mark.parametrize("start_s", [1.0, 1.32])
def test_a_start_inside_the_video(container: str, start_s: float, tmp_path: Path) -> None:
    codec = {"codec": "libvpx-vp9"} if container == "webm" else {}
    source = write_scene(tmp_path / f"scene.{container}", 75, 25, options={"g": "10"}, **codec)
    offset = round(video_packets(source)[0][1] * 25)  # MPEG-TS starts two frames late
    path = mux_audio(source, clicks(16_000, 16_000), tmp_path / "out.mp4", start_s=start_s, duration_s=1.0)
    first = round(start_s * 25) - offset
    assert decoded_numbers(path)[:25] == list(range(first, first + 25))
    sound, _, first_s = decoded_sound(path)
    assert first_s == 0
    assert abs(int(np.abs(sound[0, :2000]).argmax()) - CLICK_AT) <= 2
    with av.open(str(path)) as opened:
        frame = next(frame for frame in opened.decode(video=0))
        assert abs(float(frame.time)) < 1e-3


def test_a_start_in_matroska_keeps_pictures_and_sound_together(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 75, 25, options={"g": "10"})
    path = mux_audio(source, clicks(16_000, 16_000), tmp_path / "out.mkv", start_s=1.32, duration_s=1.0)
    numbers = decoded_numbers(path)
    with av.open(str(path)) as opened:
        times = [float(frame.time) for frame in opened.decode(video=0)]
    _, _, sound_starts_s = decoded_sound(path)
    assert numbers[0] == 30, "the last keyframe before the start"
    assert times[numbers.index(33)] == pytest.approx(sound_starts_s, abs=2e-3)


def test_the_original_sound_stays_as_a_second_track(tmp_path: Path) -> None:
    source = with_tone(write_scene(tmp_path / "scene.mp4", 75, 25))
    for ending in ("mp4", "mkv"):
        path = mux_audio(source, clicks(16_000, 32_000), tmp_path / f"out.{ending}", duration_s=2.0, original_audio="keep")
        with av.open(str(path)) as container:
            new, old = container.streams.audio
            assert (new.rate, old.rate) == (16_000, 44_100)
            default = type(new.disposition)(1)
            assert (bool(new.disposition & default), bool(old.disposition & default)) == (True, False)
        kept, _, starts_s = decoded_sound(path, 1)
        # Matroska moves all tracks by the encoder's lead-in of 1024 samples, which it shows instead of hiding it.
        lead = round((float(video_packets(path)[0][1]) - starts_s) * 44_100)
        assert abs(lead) <= (0 if ending == "mp4" else 1024 + 44)
        assert 0 <= kept.shape[1] - 2 * 44_100 < 3072
        expected = np.sin((np.arange(kept.shape[1]) - lead) / 50) * 0.5
        tolerance = 0.01 if ending == "mp4" else 0.25  # whose clock of milliseconds is up to 22 samples off
        assert np.abs(kept[0, 2000:60_000] - expected[2000:60_000]).max() < tolerance, "cut and aligned as it was"
    with av.open(str(mux_audio(source, clicks(16_000, 32_000), tmp_path / "one.mp4"))) as container:
        assert len(container.streams.audio) == 1


def test_keep_without_an_original_track(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 30, 25)
    with av.open(str(mux_audio(source, clicks(16_000, 16_000), tmp_path / "out.mp4", original_audio="keep"))) as container:
        assert len(container.streams.audio) == 1


def test_rotation_and_colour_survive(tmp_path: Path) -> None:
    tags = {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709:fullrange=on"}
    source = write_scene(tmp_path / "scene.mp4", 30, 25, options=tags)
    set_matrix(source, (0, 1, -1, 0))
    for ending in ("mp4", "mov", "mkv"):
        path = mux_audio(source, clicks(16_000, 16_000), tmp_path / f"out.{ending}")
        info, original = probe_video(path), probe_video(source)
        assert (info.width, info.height, info.has_audio) == (original.width, original.height, True)
        with av.open(str(source)) as one, av.open(str(path)) as two:
            a, b = next(one.decode(video=0)), next(two.decode(video=0))
            assert (b.colorspace, b.color_range, b.rotation) == (a.colorspace, a.color_range, a.rotation)
            assert (int(b.colorspace), int(b.color_range)) == (1, 2)
            assert two.streams.video[0].codec_context.extradata == one.streams.video[0].codec_context.extradata


def test_the_same_file_in_and_out(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 50, 25)
    before = video_packets(path)
    mux_audio(path, clicks(16_000, 32_000), path)
    assert [packet[0] for packet in video_packets(path)] == [packet[0] for packet in before]
    assert probe_video(path).has_audio
    assert os.listdir(tmp_path) == ["scene.mp4"]


def test_a_broadcast_clock_starts_at_zero(tmp_path: Path) -> None:
    stamps = [36_000 + Fraction(k, 25) for k in range(50)]
    source = write_silent_video(scene(50), 25, tmp_path / "tv.ts", stamps_s=stamps)
    path = mux_audio(source, clicks(16_000, 32_000), tmp_path / "out.mp4")
    assert min(packet[1] for packet in video_packets(path)) == 0
    assert decoded_numbers(path) == list(range(50))


def test_hevc_is_tagged_so_that_it_plays_everywhere(tmp_path: Path) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libx265")
    source = write_scene(tmp_path / "scene.mkv", 30, 25, codec="libx265", options={"x265-params": "log-level=none"})
    with av.open(str(mux_audio(source, clicks(16_000, 16_000), tmp_path / "out.mp4"))) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
        assert len(list(container.decode(video=0))) == 30


def test_pictures_that_the_container_cannot_hold(tmp_path: Path) -> None:
    if "libvpx" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libvpx")
    source = write_scene(tmp_path / "scene.mkv", 30, 25, codec="libvpx")
    with pytest.raises(MediaError, match=r"vp8 video.*\.mp4.*\.mkv"):
        mux_audio(source, clicks(16_000, 16_000), tmp_path / "out.mp4")
    assert probe_video(mux_audio(source, clicks(16_000, 16_000), tmp_path / "out.mkv")).has_audio


def test_what_cannot_be_copied_is_said_before_any_work(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mkv", 30, 25)
    check_mux(source, tmp_path / "out.mp4", "keep")
    raw = write_scene(tmp_path / "raw.h264", 30, 25)
    with pytest.raises(MediaError, match="This video stores no time stamps"):
        check_mux(raw, tmp_path / "out.mp4")
    foreign = tmp_path / "foreign.mkv"
    with av.open(str(source)) as pictures, av.open(str(foreign), "w") as sink:
        video = sink.add_stream_from_template(pictures.streams.video[0], opaque=True)
        sound = sink.add_stream("tta", rate=44_100)
        sound.codec_context.layout = "mono"
        for frame in audio_frames(np.zeros((1, 44_100), np.float32), 44_100, 2048):
            sink.mux(sound.encode(frame))
        for packet in pictures.demux(pictures.streams.video[0]):
            if packet.size:
                packet.stream = video
                sink.mux(packet)
    check_mux(foreign, tmp_path / "out.mp4")
    with pytest.raises(MediaError, match=r"holds tta audio, which a \.mp4 file cannot hold"):
        check_mux(foreign, tmp_path / "out.mp4", "keep")


def test_clear_errors(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.mp4", 30, 25)
    target = tmp_path / "out.mp4"
    good = clicks(16_000, 16_000)
    with pytest.raises(MediaError, match=r"\.mp4, \.m4v, \.mov, \.mkv"):
        mux_audio(source, good, tmp_path / "out.avi")
    with pytest.raises(MediaError, match="no file"):
        mux_audio(tmp_path / "missing.mp4", good, target)
    with pytest.raises(MediaError, match="does not exist"):
        mux_audio(source, good, tmp_path / "nowhere" / "out.mp4")
    with pytest.raises(MediaError, match="NaN"):
        mux_audio(source, (np.array([np.nan]), 16_000), target)
    with pytest.raises(MediaError, match="no pictures at its start of 9 s"):
        mux_audio(source, good, target, start_s=9.0)
    with pytest.raises(MediaError, match="12345 Hz"):
        mux_audio(source, (np.zeros(12345), 12_345), target)
    with pytest.raises(InputError, match="duration"):
        mux_audio(source, good, target, duration_s=0.0)
    with pytest.raises(InputError, match="start"):
        mux_audio(source, good, target, start_s=-1.0)
    with pytest.raises(InputError, match="replace"):
        mux_audio(source, good, target, original_audio="both")  # type: ignore[arg-type]
    sound = save_audio(good, tmp_path / "sound.wav")
    with pytest.raises(MediaError, match="only sound"):
        mux_audio(sound, good, target)
    assert sorted(os.listdir(tmp_path)) == ["scene.mp4", "sound.wav"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_scene(tmp_path / "scene.mp4", 30, 25)
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    original = mux_module.audio_frames

    def interrupted(*args: object, **keywords: object) -> object:
        yield next(original(*args, **keywords))  # type: ignore[arg-type,call-overload]
        raise KeyboardInterrupt

    monkeypatch.setattr(mux_module, "audio_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mux_audio(source, clicks(16_000, 16_000), target)
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", "scene.mp4"]
    assert target.read_bytes() == b"old"


def test_real_recordings(tmp_path: Path) -> None:
    for source in sorted(media_folder().glob("*.mp4")):
        path = mux_audio(source, clicks(44_100, 352_800), tmp_path / "out.mp4", duration_s=8.0, original_audio="keep")
        before, after = video_packets(source), video_packets(path)
        assert [packet[0] for packet in after] == [packet[0] for packet in before[: len(after)]]
        assert {a[1] - b[1] for a, b in zip(after, before, strict=False)} == {0}
        assert torch.equal(read_video(path, 7.9).clip, read_video(source, 7.9).clip)
