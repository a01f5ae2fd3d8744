"""Files to picked frames: the same instants from every frame rate, container, rotation and pixel format."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.media.frames import frames_to_video
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.video import probe_video, read_video

from .scenes import (
    HEIGHT,
    RATES,
    WIDTH,
    draw,
    expected_lists,
    expected_picks,
    media_folder,
    read_numbers,
    scene,
    set_matrix,
    write_scene,
)

ROOT = Path(__file__).parents[2]
SIZE = (HEIGHT, WIDTH)


def file_stamps(path: Path) -> list[float]:
    """float(pts * time_base) of every packet, in display order, read without decoding."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(float(packet.pts * stream.time_base) for packet in container.demux(stream) if packet.pts is not None)


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_every_rate_lands_on_the_same_instants(fps: Fraction, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", int(fps * 5 / 2), fps)
    video = read_video(path, 2.0)
    stamps = [float(k / fps) for k in range(int(fps * 5 / 2))]
    clip, sync = read_numbers(video.clip, SIZE), read_numbers(video.sync)
    assert video.duration_s == 2.0
    assert clip == expected_picks(stamps, 8, 2.0)
    assert sync == expected_picks(stamps, 25, 2.0)
    for rate, picks in ((8, clip), (25, sync)):
        for k, index in enumerate(picks):
            assert -1e-9 <= stamps[index] - k / rate < 1 / fps + 1e-9


@pytest.mark.parametrize("ending", ["mkv", "mov", "ts"])
def test_containers_with_coarse_or_offset_clocks(ending: str, tmp_path: Path) -> None:
    fps = Fraction(24000, 1001)
    path = write_scene(tmp_path / f"scene.{ending}", 60, fps)
    video = read_video(path, 2.0)
    # In .mkv, times in milliseconds put frame 48 at 2.002 s, beyond the end, so a sync frame goes missing; not in .mov.
    assert (read_numbers(video.clip, SIZE), read_numbers(video.sync)) == expected_lists(file_stamps(path), 2.0)


def test_variable_frame_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    gaps = rng.integers(1, 12, size=120)
    ticks = np.concatenate([[0], np.cumsum(gaps)])[:120]
    stamps = [Fraction(int(tick), 120) for tick in ticks]
    path = write_silent_video(scene(120), 30, tmp_path / "vfr.mp4", stamps_s=stamps)
    video = read_video(path, 4.0)
    seconds = [float(stamp) for stamp in stamps]
    assert read_numbers(video.clip, SIZE) == expected_picks(seconds, 8, 4.0)
    assert read_numbers(video.sync) == expected_picks(seconds, 25, 4.0)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
    ],
    ids=["90", "180", "270", "mirrored", "upside down"],
)
def test_rotation_is_applied_as_players_do(matrix: tuple[int, int, int, int], turn: object, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "turned.mp4", 30, 25)
    with av.open(str(path)) as container:
        images = [frame.to_rgb().to_ndarray() for frame in container.decode(video=0)]
    set_matrix(path, matrix)
    turned = frames_to_video([turn(image) for image in images], 25, 1.0)  # type: ignore[operator]
    video = read_video(path, 1.0)
    assert torch.equal(video.clip, turned.clip)
    assert torch.equal(video.sync, turned.sync)
    info = probe_video(path)
    assert (info.height, info.width) == turn(images[0]).shape[:2]  # type: ignore[operator]


def test_rotation_shows_in_the_pixels(tmp_path: Path) -> None:
    # A sideways recording: matrix of a phone held upright, which players turn by 90 degrees clockwise.
    def image() -> np.ndarray:
        picture = np.zeros((64, 128, 3), np.uint8)
        picture[:, :32] = 255
        return picture

    path = write_silent_video((image() for _ in range(25)), 25, tmp_path / "phone.mp4")
    set_matrix(path, (0, 1, -1, 0))
    clip = read_video(path, 0.8).clip[0, 0].float()
    assert clip[:64].mean() > 230, "the left edge of the recording belongs at the top"
    assert clip[128:].mean() < 25


def test_a_broadcast_clock_is_subtracted(tmp_path: Path) -> None:
    base = Fraction(36_000)
    path = write_silent_video(scene(60), 25, tmp_path / "tv.ts", stamps_s=[base + Fraction(k, 25) for k in range(60)])
    stamps = [k / 25 for k in range(60)]
    assert file_stamps(path)[0] > 1000
    video = read_video(path, 2.0)
    assert read_numbers(video.clip, SIZE) == expected_picks(stamps, 8, 2.0)
    assert read_numbers(video.sync) == expected_picks(stamps, 25, 2.0)


def test_a_start_below_half_a_second_is_kept(tmp_path: Path) -> None:
    stamps = [Fraction(k + 10, 25) for k in range(60)]
    path = write_silent_video(scene(60), 25, tmp_path / "late.mkv", stamps_s=stamps)
    video = read_video(path, 2.0)
    assert read_numbers(video.clip, SIZE) == expected_picks([float(stamp) for stamp in stamps], 8, 2.0)
    assert read_numbers(video.clip[:4], SIZE) == [0, 0, 0, 0]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "h264"])
@pytest.mark.parametrize("start_s", [0.5, 2.0, 3.28])
def test_start(ending: str, start_s: float, tmp_path: Path) -> None:
    path = write_scene(tmp_path / f"scene.{ending}", 125, 25, options={"g": "25"})
    # MPEG-TS keeps the B-frame delay of two frames; the others start at 0.
    first = round(file_stamps(path)[0] * 25) if ending == "ts" else 0
    stamps = [float(Fraction(first + k, 25) - Fraction(str(start_s))) for k in range(125)]
    video = read_video(path, 1.0, start_s=start_s)
    clip, sync = expected_lists(stamps, 1.0)
    assert (read_numbers(video.clip, SIZE), read_numbers(video.sync)) == (clip, sync)
    assert len(clip) == 8


def test_the_whole_file(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 90, 30)
    video = read_video(path, None)
    assert (video.duration_s, len(video.clip), len(video.sync)) == (3.0, 24, 75)
    assert read_video(path, None, start_s=1.0).duration_s == 2.0


def test_a_duration_beyond_the_end_is_cut(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 90, 30)
    video = read_video(path, 8.0)
    # One frame more than 3 s: the walk still takes what is at 2.9667 s, and 75 sync frames say 3.0 s.
    assert (video.duration_s, len(video.clip), len(video.sync)) == (3.0, 24, 75)


def test_a_file_of_exactly_eight_seconds(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 200, 25)
    published = read_video(path, 8.0)
    assert (published.duration_s, len(published.clip), len(published.sync)) == (7.96, 63, 199)
    held = read_video(path, 8.0, hold_last=True)
    assert (held.duration_s, len(held.clip), len(held.sync)) == (8.0, 64, 200)
    assert read_numbers(held.sync[-1:]) == [199]
    assert torch.equal(held.sync[:199], published.sync)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "ending"),
    [
        ("ffv1", "gray", "mkv"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "yuva420p", "mkv"),
        ("ffv1", "yuv422p10le", "mkv"),
        ("ffv1", "bgr0", "mkv"),
        ("ffv1", "gbrp16le", "mkv"),
        ("libx264", "yuv420p10le", "mp4"),
        ("libx264", "yuv444p", "mp4"),
        ("mpeg4", "yuv420p", "avi"),
        ("mjpeg", "yuvj420p", "mov"),
        ("libvpx-vp9", "yuv420p", "webm"),
    ],
)
def test_pixel_formats(codec: str, pix_fmt: str, ending: str, tmp_path: Path) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = write_scene(tmp_path / f"scene.{ending}", 30, 25, codec=codec, pix_fmt=pix_fmt)
    video = read_video(path, 1.0)
    assert read_numbers(video.clip, SIZE) == expected_picks([k / 25 for k in range(30)], 8, 1.0)
    # The border around the grid is level 96 in the source, whatever the format.
    assert abs(video.clip[:, :, 100:200, 20:60].float().mean() - 96) < 3


@pytest.mark.parametrize("size", [(97, 161), (2, 2), (1, 7), (33, 500), (500, 33)])
def test_odd_and_tiny_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    images = (draw(k, *size) for k in range(20))
    path = write_silent_video(images, 25, tmp_path / "odd.mkv", codec="ffv1", pix_fmt="bgr0")
    video = read_video(path, 0.7, clip_size=48, sync_size=28)
    assert video.clip.shape == (5, 3, 48, 48)
    assert video.sync is not None
    assert video.sync.shape == (17, 3, 28, 28)


def test_probe(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 60, Fraction(30000, 1001))
    info = probe_video(path)
    assert (info.width, info.height, info.has_audio, info.codec) == (WIDTH, HEIGHT, False, "h264")
    assert info.fps == pytest.approx(30000 / 1001)
    assert info.duration_s == pytest.approx(2.002, abs=1e-3)
    assert "mp4" in info.container


def test_progress_grows_to_its_total(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 60, 25)
    calls: list[tuple[int, int]] = []
    read_video(path, 2.0, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (66, 66)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_every_frame_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmaudio_core.media import video as module

    seen: list[int] = []
    original = module.frame_pixels
    monkeypatch.setattr(module, "frame_pixels", lambda frame, *rest: (seen.append(frame.pts), original(frame, *rest))[1])
    read_video(write_scene(tmp_path / "slow.mp4", 36, 12), 2.0)
    assert len(seen) == len(set(seen)) <= 25
    seen.clear()
    read_video(write_scene(tmp_path / "fast.mp4", 300, 120), 2.0)
    assert len(seen) == len(set(seen)) <= 66, "frames that no stream takes must not be converted"


@pytest.mark.parametrize("start_s", [-1.0, float("nan"), float("inf")])
def test_impossible_starts(start_s: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="start"):
        read_video(tmp_path / "any.mp4", 1.0, start_s=start_s)


@pytest.mark.parametrize("duration_s", [0.0, 0.5, -1.0, float("nan")])
def test_impossible_durations(duration_s: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.64"):
        read_video(tmp_path / "any.mp4", duration_s)


def test_real_recordings() -> None:
    folder = media_folder()
    for path in sorted(folder.glob("*.mp4")):
        video = read_video(path, 8.0)
        assert (video.duration_s, video.clip.shape, video.source) == (8.0, (64, 3, 384, 384), path.name)
        assert video.sync is not None
        assert video.sync.shape == (200, 3, 224, 224)
        later = read_video(path, 2.0, start_s=3.0)
        assert torch.equal(later.clip[0], video.clip[24])


ABANDON = """
import sys
import av
from mmaudio_core.media.video import probe_video
av.logging.set_level(av.logging.DEBUG)
for _ in range(1500):
    probe_video(sys.argv[1])
"""


def test_abandoned_decoding_does_not_hang_where_pyav_logs(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 30, 25)
    subprocess.run([sys.executable, "-c", ABANDON, str(path)], cwd=ROOT, check=True, capture_output=True, timeout=120)


def test_more_frames_than_there_is_memory_for(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 100, 25)
    sizes = {"clip_size": 32, "sync_size": 32}
    one_second = 33 * 3 * 32 * 32 * 2.2
    assert read_video(path, None, most_bytes=int(4.01 * one_second), **sizes).duration_s == pytest.approx(3.96)
    words = (
        r"Reading the frames of 4 s of scene\.mp4 takes 0\.0 GB, and 0\.0 GB of memory are free\. Ask for a shorter duration"
    )
    with pytest.raises(MediaError, match=words):
        read_video(path, None, most_bytes=int(3.9 * one_second), **sizes)
    with pytest.raises(MediaError, match="Reading the frames of 3 s"):
        read_video(path, 900.0, start_s=1.0, most_bytes=int(2.9 * one_second), **sizes)
    assert read_video(path, 1.0, most_bytes=int(1.01 * one_second), **sizes).duration_s == 1.0
