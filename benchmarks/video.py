"""Frame preparation from a file: frame by frame in one thread, as it was published, against ``read_video``.

``python -m benchmarks.video [--file VIDEO] [--seconds 8] [--runs 5] [--json FILE]``; without a file, a made-up one of 720p.
The two must agree in every pixel, and this stops where they do not. They run in turns, so that a busy machine harms both
alike; the processor's seconds stand beside the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.media.collect import FrameBuffer
from mmaudio_core.media.in_order import default_workers, usable_cpus
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.opening import decode_tolerantly, open_media, pick_video_stream
from mmaudio_core.media.picking import FramePicker
from mmaudio_core.media.resize import CLIP_SIZE, SYNC_SIZE, clip_frame, sync_frame
from mmaudio_core.media.rotation import MatrixReader, apply_matrix
from mmaudio_core.media.video import read_video


def plain_video(path: Path, duration_s: float, clip_size: int = CLIP_SIZE, sync_size: int = SYNC_SIZE) -> tuple[Tensor, Tensor]:
    """Picked frames with ``frame.to_rgb()``, torch's resize and nothing else, one after the other: (clip, sync), uint8.

    For files whose clock starts at 0 and that last longer than ``duration_s``.
    """
    picker, matrices = FramePicker(duration_s), MatrixReader()
    clip, sync = FrameBuffer(clip_size, 64), FrameBuffer(sync_size, 200)
    with open_media(path) as container:
        stream = pick_video_stream(container, path.name)
        for frame in decode_tolerantly(container, stream):
            picks = picker.feed(float(frame.pts * frame.time_base))
            if picks:
                image = apply_matrix(frame.to_rgb().to_ndarray(), matrices.read(frame))
                pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
                if picks.clip:
                    clip.append(clip_frame(pixels, clip_size)[0], picks.clip)
                if picks.sync:
                    sync.append(sync_frame(pixels, sync_size)[0], picks.sync)
            if picker.done:
                break
    return clip.take(picker.clip_count), sync.take(picker.sync_count)


def made_up_frames(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3): a scrolling texture of several octaves with a little noise, which costs a codec what a film costs it."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.zeros(1, 3, 2 * height, 2 * width)
    for cells, weight in ((8, 0.5), (32, 0.3), (128, 0.15), (512, 0.1)):
        coarse = torch.rand(1, 3, cells, cells * width // height, generator=generator)
        texture += weight * F.interpolate(coarse, size=texture.shape[-2:], mode="bicubic")
    for k in range(count):
        top, left = int(height * (0.5 + 0.4 * np.sin(0.03 * k))), int(width * (0.5 + 0.4 * np.sin(0.02 * k)))
        picture = texture[0, :, top : top + height, left : left + width]
        noise = 0.02 * torch.randn(1, height, width, generator=generator)
        yield ((picture + noise).clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous().numpy()


def timed(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, dict[str, float]]:
    """Seconds of ``runs`` rounds of all ``calls`` in turns."""
    clock: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            call()
            clock[name].append(time.perf_counter() - begin)
            processor[name].append(time.process_time() - begin_cpu)
    return {
        name: {
            "median_s": round(statistics.median(clock[name]), 4),
            "least_s": round(min(clock[name]), 4),
            "cpu_s": round(min(processor[name]), 4),
        }
        for name in calls
    }


def measure(path: Path, duration_s: float, runs: int) -> dict[str, Any]:
    """Times of the plain path, of ``read_video`` in one thread and with its workers; all three are compared first."""
    clip, sync = plain_video(path, duration_s)
    for workers in (0, default_workers()):
        video = read_video(path, duration_s, workers=workers)
        if not (torch.equal(video.clip, clip[: len(video.clip)]) and torch.equal(video.sync, sync[: len(video.sync)])):
            raise SystemExit(f"{path.name}: the frames differ from the plain path's.")
    times = timed(
        {
            "plain": lambda: plain_video(path, duration_s),
            "one thread": lambda: read_video(path, duration_s, workers=0),
            "read_video": lambda: read_video(path, duration_s),
        },
        runs,
    )
    plain, new = times["plain"], times["read_video"]
    return {
        "file": path.name,
        "duration_s": duration_s,
        "cpus": usable_cpus(),
        "workers": default_workers(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **times,
        "times as fast (median)": round(plain["median_s"] / new["median_s"], 2),
        "times as fast (least)": round(plain["least_s"] / new["least_s"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--fps", type=int, default=25, help="of the made-up video")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.file
        if path is None:
            frames = made_up_frames(int((given.seconds + 0.2) * given.fps), 720, 1280)
            path = write_silent_video(
                frames, given.fps, Path(folder) / f"made up 720p{given.fps}.mp4", options={"preset": "veryfast"}
            )
        result = measure(path, given.seconds, given.runs)
    print(json.dumps(result, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
