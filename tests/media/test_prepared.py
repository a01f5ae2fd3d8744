"""Threads, kept converters and devices change no pixel: all against the plain path, frame by frame."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from benchmarks.video import made_up_frames, plain_video
from mmaudio_core.errors import MediaError
from mmaudio_core.media.collect import FrameCollector
from mmaudio_core.media.device_resize import DeviceResizer, filter_table
from mmaudio_core.media.frames import frames_to_video, pixels_to_uint8
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.picking import pick_indices
from mmaudio_core.media.quantise import quantise
from mmaudio_core.media.resize import clip_frame, sync_frame, to_uint8
from mmaudio_core.media.rgb import RgbConverter
from mmaudio_core.media.rotation import apply_matrix
from mmaudio_core.media.video import read_video

from .scenes import set_matrix

WORKERS = [0, 3]
SECONDS = 0.68


def texture(count: int, height: int = 108, width: int = 190) -> Iterator[np.ndarray]:
    return made_up_frames(count, height, width)


def same_as_plain(path: Path) -> None:
    clip, sync = plain_video(path, SECONDS)
    assert clip.float().std() > 5, "a flat picture proves nothing"
    for workers in WORKERS:
        video = read_video(path, SECONDS, workers=workers)
        assert video.sync is not None
        assert (len(video.clip), len(video.sync)) in ((5, 17), (5, 16))  # the shortening rule may drop one
        assert torch.equal(video.clip, clip[:5])
        assert torch.equal(video.sync, sync[: len(video.sync)])


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "ending"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libx264", "yuv420p10le", "mp4"),
        ("libx264", "yuv444p", "mp4"),
        ("mjpeg", "yuvj422p", "mov"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "yuva420p", "mkv"),
        ("ffv1", "yuv422p10le", "mkv"),
        ("ffv1", "gbrp16le", "mkv"),
        ("ffv1", "bgr0", "mkv"),
        ("png", "rgb24", "mov"),
    ],
)
def test_pixel_formats(codec: str, pix_fmt: str, ending: str, tmp_path: Path) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    same_as_plain(write_silent_video(texture(20), 25, tmp_path / f"scene.{ending}", codec=codec, pix_fmt=pix_fmt))


@pytest.mark.parametrize("fps", [Fraction(12), Fraction(24000, 1001), Fraction(30), Fraction(60)], ids=str)
def test_rates(fps: Fraction, tmp_path: Path) -> None:
    same_as_plain(write_silent_video(texture(int(fps) + 1), fps, tmp_path / "scene.mp4"))


@pytest.mark.parametrize("size", [(97, 161), (190, 108), (7, 300), (224, 224), (300, 230)])
def test_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    same_as_plain(write_silent_video(texture(20, *size), 25, tmp_path / "s.mkv", codec="ffv1", pix_fmt="bgr0"))


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1)], ids=["turned", "upside down", "mirrored"])
def test_rotations(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = write_silent_video(texture(20, 108, 192), 25, tmp_path / "phone.mp4")
    set_matrix(path, matrix)
    same_as_plain(path)


def test_repeats_to_the_end(tmp_path: Path) -> None:
    path = write_silent_video(texture(12), 12, tmp_path / "slow.mp4")
    plain = read_video(path, None, hold_last=True, workers=0)
    for workers in (1, 3):
        video = read_video(path, None, hold_last=True, workers=workers)
        assert (video.duration_s, len(video.clip), len(video.sync)) == (1.0, 8, 25)  # type: ignore[arg-type]
        assert torch.equal(video.clip, plain.clip)
        assert torch.equal(video.sync, plain.sync)  # type: ignore[arg-type]


def test_a_converter_is_good_for_any_sequence_of_frames() -> None:
    rng = np.random.default_rng(0)
    to_rgb = RgbConverter()
    for turn in range(2):
        for pix_fmt in ("yuv420p", "yuvj420p", "yuv420p10le", "yuv444p", "gray", "rgba", "nv12", "rgb24"):
            for size in ((64, 96), (50, 130)):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (*size, 3), np.uint8), format="rgb24")
                for colorspace, color_range in ((1, 1), (5, 1), (1, 2), (9, 1), (2, 0)):
                    coded = frame.reformat(format=pix_fmt)
                    coded.colorspace, coded.color_range = colorspace, color_range
                    kept = to_rgb(coded).to_ndarray()
                    assert (kept == coded.to_rgb().to_ndarray()).all(), (turn, pix_fmt, size, colorspace, color_range)


def test_a_converter_serves_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        made = 0

        def __init__(self) -> None:
            Slow.made += 1
            self.busy = False

        def reformat(self, frame: av.VideoFrame, **options: object) -> int:
            assert not self.busy
            self.busy = True
            time.sleep(0.01)
            self.busy = False
            return frame.width

    to_rgb = RgbConverter()
    monkeypatch.setattr(to_rgb, "_new", Slow)
    frames = [av.VideoFrame(32 if k % 7 == 6 else 16, 16, "yuv420p") for k in range(40)]
    to_rgb(frames[1])
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(to_rgb, frames)) == [frame.width for frame in frames]
    assert Slow.made < 40, "none was kept"


def test_turned_pictures_are_those_of_numpy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 33, 3), np.uint8)
    padded = np.zeros((20, 40, 3), np.uint8)[:, :33]
    padded[:] = image
    for given in (image, padded):
        for matrix, wanted in (
            ((1.0, 0.0, 0.0, 1.0), image),
            ((0.0, 1.0, -1.0, 0.0), np.rot90(image, -1)),
            ((0.0, -1.0, 1.0, 0.0), np.rot90(image, 1)),
            ((-1.0, 0.0, 0.0, -1.0), np.rot90(image, 2)),
            ((-1.0, 0.0, 0.0, 1.0), image[:, ::-1]),
            ((1.0, 0.0, 0.0, -1.0), image[::-1]),
        ):
            turned = apply_matrix(given, matrix)
            assert turned.flags.c_contiguous
            assert (turned == wanted).all()


@pytest.mark.parametrize("kind", ["uint8", "float32", "float16", "planar"])
def test_frames_in_memory(kind: str) -> None:
    batch = torch.from_numpy(np.stack(list(texture(40, 60, 100))))
    given = {
        "uint8": batch,
        "float32": batch.float() / 255 + 0.001,
        "float16": batch.half() / 255,
        "planar": (batch.float() / 255).permute(0, 3, 1, 2).contiguous(),
    }[kind]
    clip, sync = pick_indices([k / 30 for k in range(40)], 1.0)
    chosen = to_uint8(given if kind == "planar" else given.permute(0, 3, 1, 2))
    for workers in WORKERS:
        video = frames_to_video(given, 30, 1.0, workers=workers)
        assert video.sync is not None
        assert torch.equal(video.clip, torch.cat([clip_frame(chosen[k : k + 1]) for k in clip]))
        assert torch.equal(video.sync, torch.cat([sync_frame(chosen[k : k + 1]) for k in sync]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_generator_may_use_one_buffer_for_all_frames(dtype: type) -> None:
    images = [image if dtype is np.uint8 else (image / np.float32(255)).astype(dtype) for image in texture(40)]
    buffer = np.empty_like(images[0])

    def reused() -> Iterator[np.ndarray]:
        for image in images:
            buffer[...] = image
            yield buffer
        buffer[...] = 0

    expected = frames_to_video(images, 25, 1.4, workers=0)
    for workers in (2, 4):
        video = frames_to_video(reused(), 25, 1.4, workers=workers)
        assert torch.equal(video.clip, expected.clip)
        assert torch.equal(video.sync, expected.sync)  # type: ignore[arg-type]


def test_a_bad_frame_is_told_and_the_threads_end() -> None:
    frames = [*texture(20), np.full((8, 8, 3), np.nan, np.float32), *texture(20)]
    with pytest.raises(MediaError, match="NaN"):
        frames_to_video(frames, 25, 1.4, workers=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mmaudio-frames")]


def test_progress_may_stop_it(tmp_path: Path) -> None:
    path = write_silent_video(texture(40), 25, tmp_path / "scene.mp4")
    callers = set()

    def progress(done: int, total: int) -> None:
        callers.add(threading.get_ident())
        if done >= 10:
            raise InterruptedError("stopped by the user")

    with pytest.raises(InterruptedError, match="stopped"):
        read_video(path, 1.0, progress=progress, workers=3)
    assert callers == {threading.get_ident()}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mmaudio-frames")]


@pytest.mark.parametrize("workers", WORKERS)
def test_frames_leave_memory_without_the_garbage_collector(workers: int) -> None:
    gc.collect()
    gc.disable()
    try:
        images = list(texture(20))
        before = sys.getrefcount(images[-1])
        with FrameCollector(None, workers=workers) as collector:
            for k in range(20):
                collector.feed(k / 25, partial(pixels_to_uint8, images[k]))
            kept = weakref.ref(collector)
            assert len(collector.finish(0.8, "texture").clip) == 6
        del collector
        after = sys.getrefcount(images[-1])
        assert kept() is None, "its buffers would stay"
        assert after == before, "the last frame would stay"
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["last", "first", "alpha", "expanded", "large"])
def test_quantise_is_to_uint8(dtype: torch.dtype, layout: str) -> None:
    shape = (700, 300, 4) if layout == "large" else (37, 53, 4)  # 700 rows are several pieces
    # Half levels and their neighbours, where rounding shows, and values beyond the range.
    values = (torch.randint(-12, 540, shape, generator=torch.Generator().manual_seed(0)).double() / 2 / 255).to(dtype)
    frame = {
        "last": values[..., :3].contiguous().permute(2, 0, 1),
        "first": values[..., :3].permute(2, 0, 1).contiguous(),
        "alpha": values[..., :3].permute(2, 0, 1),
        "expanded": values[:1, :1, :3].permute(2, 0, 1).expand(3, 40, 50),
        "large": values[..., :3].permute(2, 0, 1),
    }[layout]
    given = frame.clone()
    pixels, low, high = quantise(frame)
    assert torch.equal(pixels, to_uint8(given))
    assert torch.equal(frame, given), "the caller's frame stays as it was"
    assert (low, high) == (given.min().item(), given.max().item())


@pytest.mark.parametrize("value", [1.0, 1.001, 1.002, 1.004, -0.001, -0.002, -0.004])
def test_quantise_clamps_what_lies_just_outside(value: float) -> None:
    assert quantise(torch.full((3, 4, 5), value))[0].unique().tolist() == [255 if value > 0 else 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 350, 699])
def test_quantise_sees_every_value(bad: float, row: int) -> None:
    frame = torch.full((3, 700, 300), 0.5)
    frame[1, row, 7] = bad
    with pytest.raises(MediaError, match="NaN or infinite"):
        pixels_to_uint8(frame)
    frame[1, row, 7] = 255.0
    with pytest.raises(MediaError, match="reaches 255"):
        pixels_to_uint8(frame)


SIZES = [
    (1, 1),
    (2, 2),
    (1, 7),
    (30, 500),
    (97, 161),
    (224, 398),
    (384, 384),
    (480, 854),
    (720, 1280),
    (1280, 720),
    (1080, 1920),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_device_gives_the_pixels_of_the_8_bit_kernel(size: tuple[int, int]) -> None:
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frame[..., : size[0] // 2, :] = (frame[..., : size[0] // 2, :] > 127) * 255  # where the filter overshoots
    resizer = DeviceResizer("cpu")
    assert torch.equal(resizer.clip_frame(frame), clip_frame(frame))
    assert torch.equal(resizer.sync_frame(frame), sync_frame(frame))
    assert torch.equal(resizer.sync_frame(frame[0], 48), sync_frame(frame[0], 48))


@pytest.mark.parametrize(("source", "target"), [(1280, 398), (720, 224), (7680, 224), (30, 384)])
def test_sums_of_the_device_stay_whole_in_float32(source: int, target: int) -> None:
    table, precision = filter_table(source, target)
    assert table.sum(dim=0).sub(1 << precision).abs().max() <= table.ne(0).sum(dim=0).max()
    low = (table + 128).remainder(256) - 128
    high = (table - low) // 256
    for part in (low, high):
        assert part.abs().max() <= 128, "eight bits, which TF32 holds"
        assert 255 * part.abs().sum(dim=0).max() < 1 << 24


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tf32", [False, True])
def test_on_a_gpu(tf32: bool, tmp_path: Path) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        path = write_silent_video(texture(30, 720, 1280), 25, tmp_path / "scene.mp4", options={"preset": "ultrafast"})
        on_cpu, on_gpu = read_video(path, 1.0), read_video(path, 1.0, device="cuda")
        assert torch.equal(on_gpu.clip, on_cpu.clip)
        assert torch.equal(on_gpu.sync, on_cpu.sync)  # type: ignore[arg-type]
        for size in SIZES:
            frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
            assert torch.equal(DeviceResizer("cuda").clip_frame(frame), clip_frame(frame))
            assert torch.equal(DeviceResizer("cuda").sync_frame(frame.cuda()), sync_frame(frame))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
