"""Frames in memory give what a file of the same frames gives."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.media.frames import frames_to_video, image_to_video_frames
from mmaudio_core.media.video import read_video

from .scenes import HEIGHT, RATES, WIDTH, draw, expected_picks, read_numbers, scene, write_scene

SIZE = (HEIGHT, WIDTH)


def batch(count: int, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.from_numpy(np.stack(list(scene(count, height, width))))


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_every_rate_lands_on_the_same_instants(fps: Fraction) -> None:
    count = int(fps * 5 / 2)
    video = frames_to_video(scene(count), fps, 2.0)
    stamps = [float(k / fps) for k in range(count)]
    assert video.duration_s == 2.0
    assert read_numbers(video.clip, SIZE) == expected_picks(stamps, 8, 2.0)
    assert read_numbers(video.sync) == expected_picks(stamps, 25, 2.0)


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(60)], ids=str)
def test_the_same_as_a_file_of_the_same_frames(fps: Fraction, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", int(fps * 3), fps)
    with av.open(str(path)) as container:
        images = np.stack([frame.to_rgb().to_ndarray() for frame in container.decode(video=0)])
    for asked_s in (2.0, 2.5, 8.0):
        from_file = read_video(path, asked_s)
        from_memory = frames_to_video(images, fps, asked_s, hold_last=False)
        assert from_memory.duration_s == from_file.duration_s
        assert torch.equal(from_memory.clip, from_file.clip)
        assert torch.equal(from_memory.sync, from_file.sync)


@pytest.mark.parametrize("fps", [Fraction(12), Fraction(16), Fraction(24), Fraction(30000, 1001), Fraction(60)], ids=str)
def test_a_start_means_what_it_means_for_a_file(fps: Fraction, tmp_path: Path) -> None:
    count = int(fps * 3)
    path = write_scene(tmp_path / "scene.mp4", count, fps, options={"g": "20"})
    with av.open(str(path)) as container:
        images = torch.from_numpy(np.stack([frame.to_rgb().to_ndarray() for frame in container.decode(video=0)]))
    for start_s in (0.0, 0.5, 1.0, 1.37):
        stamps = [float(k / fps - Fraction(str(start_s))) for k in range(count)]
        for asked_s in (1.0, 8.0, None):
            from_file = read_video(path, asked_s, start_s=start_s, hold_last=True)
            from_memory = frames_to_video(images, fps, asked_s, start_s=start_s)
            assert from_memory.duration_s == from_file.duration_s
            assert torch.equal(from_memory.clip, from_file.clip)
            assert torch.equal(from_memory.sync, from_file.sync)
            numbers = read_numbers(from_memory.sync)
            assert numbers[0] == next(k for k, stamp in enumerate(stamps) if stamp >= 0)
            if asked_s == 1.0:
                assert numbers == expected_picks(stamps, 25, 1.0)
        published = frames_to_video(images, fps, 1.0, start_s=start_s, hold_last=False)
        assert torch.equal(published.clip, read_video(path, 1.0, start_s=start_s).clip)


def test_the_frame_at_a_decimal_start_is_the_first() -> None:
    # The float 3.24 lies just above 81/25, and taken as it is would miss the frame that begins there.
    assert read_numbers(frames_to_video(scene(110), 25, 0.64, start_s=3.24).sync)[0] == 81


@pytest.mark.parametrize("start_s", [-1.0, float("nan"), float("inf"), -float("inf")])
def test_impossible_starts(start_s: float) -> None:
    with pytest.raises(InputError, match=r"start of .* s was asked for; it must be 0 or more"):
        frames_to_video(batch(30), 25, 1.0, start_s=start_s)


@pytest.mark.parametrize("start_s", [1.2, 1.19, 9.0])
@pytest.mark.parametrize("asked_s", [1.0, None])
def test_a_start_beyond_the_end(start_s: float, asked_s: float | None, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.mp4", 30, 25)
    words = rf"ends at 1\.20 s.*start of {start_s:g} s.*earlier start"
    with pytest.raises(MediaError, match="frames " + words):
        frames_to_video(scene(30), 25, asked_s, start_s=start_s)
    with pytest.raises(MediaError, match="scene.mp4 " + words):
        read_video(path, asked_s, start_s=start_s, hold_last=True)


def test_a_start_near_the_end() -> None:
    with pytest.raises(MediaError, match=r"too short.*0\.40 s.*0\.64"):
        frames_to_video(batch(30), 25, 1.0, start_s=0.8)


def test_a_last_frame_that_outlasts_the_asked_duration_is_held_until_then(tmp_path: Path) -> None:
    for video in (
        frames_to_video(scene(6), 1, 5.5),
        read_video(write_scene(tmp_path / "slow.mp4", 6, 1), 5.5, hold_last=True),
    ):
        assert (video.duration_s, len(video.clip), len(video.sync)) == (5.5, 44, 137)
        assert read_numbers(video.sync[-12:]) == [5] * 12


def test_a_duration_far_beyond_the_end_takes_no_memory_for_it() -> None:
    video = frames_to_video(batch(30), 25, 1e6)
    assert (video.duration_s, len(video.clip), len(video.sync)) == (1.2, 9, 30)


def test_a_late_start_copies_nothing() -> None:
    # A minute of 1080p in one picture's memory: a copy of it would need 36 GB.
    frames = torch.full((1, 1080, 1920, 3), 0.5).expand(1500, -1, -1, -1)
    video = frames_to_video(frames, 25, 0.64, start_s=50.0, clip_size=32, sync_size=32)
    assert (video.duration_s, len(video.clip), len(video.sync)) == (0.64, 5, 16)


@pytest.mark.parametrize("fps", [fps for fps in RATES if fps.denominator == 1], ids=str)
def test_frames_of_eight_seconds_give_eight_seconds(fps: Fraction) -> None:
    count = int(8 * fps)
    video = frames_to_video(scene(count), fps, 8.0, clip_size=64, sync_size=64)
    assert (video.duration_s, len(video.clip), len(video.sync)) == (8.0, 64, 200)
    # The last frame stays on screen until 8 s, hence the extra stamp there.
    picks = expected_picks([float(k / fps) for k in range(count + 1)], 25, 8.0)
    assert read_numbers(video.sync) == [min(index, count - 1) for index in picks]


@pytest.mark.parametrize("asked_s", [None, 8.0, 4.0])
def test_frames_never_cover_more_than_their_time(asked_s: float | None) -> None:
    video = frames_to_video(scene(100), 25, asked_s)
    assert (video.duration_s, len(video.clip), len(video.sync)) == (4.0, 32, 100)


def test_layouts_and_types_agree() -> None:
    reference = frames_to_video(batch(30), 25, 1.0)
    frames = batch(30)
    alpha = torch.cat([frames, torch.zeros_like(frames[..., :1])], dim=-1)
    for given in (
        frames.permute(0, 3, 1, 2),
        frames.numpy(),
        frames.float() / 255,
        (frames.numpy() / 255.0).astype(np.float64),
        frames.half() / 255,
        alpha,
        list(frames),
        (frame.permute(2, 0, 1) for frame in frames),
    ):
        video = frames_to_video(given, 25, 1.0)
        assert torch.equal(video.clip, reference.clip)
        assert torch.equal(video.sync, reference.sync)


def test_a_generator_is_read_only_as_far_as_needed() -> None:
    read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            yield draw(read)
            read += 1

    video = frames_to_video(endless(), 25, 1.0)
    assert video.duration_s == 1.0
    assert read <= 26


def test_views_that_torch_cannot_share() -> None:
    frames = batch(30).numpy()
    frames.flags.writeable = False
    assert torch.equal(frames_to_video(frames, 25, 1.0).clip, frames_to_video(batch(30), 25, 1.0).clip)
    mirrored = frames_to_video(frames[:, :, ::-1], 25, 1.0)
    assert torch.equal(mirrored.clip, frames_to_video(torch.from_numpy(frames[:, :, ::-1].copy()), 25, 1.0).clip)


@pytest.mark.parametrize("fps", [0, -25, float("nan"), float("inf"), "fast", None])
def test_impossible_rates(fps: object) -> None:
    with pytest.raises(InputError, match="frame rate"):
        frames_to_video(batch(30), fps, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (torch.zeros(0, 8, 8, 3), "no frames"),
        ([], "no frames"),
        (torch.zeros(8, 8, 3), "shape"),
        (torch.zeros(30, 8, 8), "shape"),
        (torch.zeros(30, 8, 8, 2), "3 colours"),
        (torch.zeros(30, 8, 8, 3, dtype=torch.int64), "int64"),
        (np.zeros((30, 8, 8, 3), np.uint16), "uint16"),
        (np.zeros((30, 8, 8, 3), object), "object"),
        (torch.full((30, 8, 8, 3), 255.0), "Divide by 255"),
        (torch.full((30, 8, 8, 3), float("nan")), "NaN"),
        (torch.zeros(30, 0, 8, 3), "shape"),
        (["a", "b"], "str"),
        (7, "int"),
    ],
)
def test_what_is_not_a_video(frames: object, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        frames_to_video(frames, 25, 1.0)  # type: ignore[arg-type]


def test_too_few_frames() -> None:
    with pytest.raises(MediaError, match=r"too short.*0\.40 s.*0\.64"):
        frames_to_video(batch(10), 25, 1.0)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_images_from_files(ending: str, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / f"still.{ending}"
    pillow.fromarray(draw(1234)).save(path)
    video = image_to_video_frames(path)
    assert (video.clip.shape, video.sync, video.source) == ((1, 3, 384, 384), None, path.name)
    assert read_numbers(video.clip, SIZE) == [1234]


def test_images_from_memory() -> None:
    image = draw(77)
    expected = image_to_video_frames(image).clip
    assert read_numbers(expected, SIZE) == [77]
    for given in (image[None], image.transpose(2, 0, 1), torch.from_numpy(image).float() / 255):
        assert torch.equal(image_to_video_frames(given).clip, expected)
    assert image_to_video_frames(image, 96).clip.shape == (1, 3, 96, 96)


def test_images_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "note.png"
    path.write_text("not a picture at all")
    with pytest.raises(MediaError, match=r"note\.png holds no picture"):
        image_to_video_frames(path)
    with pytest.raises(MediaError, match="no file"):
        image_to_video_frames(tmp_path / "missing.png")
    with pytest.raises(MediaError, match="shape"):
        image_to_video_frames(np.zeros((2, 8, 8, 3), np.uint8))
