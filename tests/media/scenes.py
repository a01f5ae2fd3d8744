"""A scene whose frames carry their own number, so that a test can read from pixels which source frame was picked."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.picking import settle_duration

HEIGHT, WIDTH = 96, 160
CELLS = 4
BITS = CELLS * CELLS
RATES = [
    Fraction(12),
    Fraction(16),
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60),
    Fraction(120),
]
"""Source frame rates that the reader has to bring onto the same instants."""


def media_folder() -> Path:
    """Real recordings; their absence skips the test."""
    default = Path(__file__).parents[3] / "shared" / "media"
    folder = Path(os.environ.get("MMAUDIO_MEDIA", default))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder} (MMAUDIO_MEDIA)")
    return folder


def draw(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 (H, W, 3): the 16 bits of ``number`` as a 4 x 4 grid of black and white squares over the centre square."""
    frame = np.full((height, width, 3), 96, np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    edges = np.linspace(0, side, CELLS + 1).astype(int)
    for bit in range(BITS):
        row, column = divmod(bit, CELLS)
        value = 255 if number >> bit & 1 else 0
        frame[top + edges[row] : top + edges[row + 1], left + edges[column] : left + edges[column + 1]] = value
    return frame


def scene(count: int, height: int = HEIGHT, width: int = WIDTH) -> Iterator[np.ndarray]:
    """``count`` frames, numbered from 0."""
    return (draw(number, height, width) for number in range(count))


def write_scene(path: Path, count: int, fps: Fraction | int, **options: object) -> Path:
    """The scene as a video file."""
    return write_silent_video(scene(count), fps, path, **options)  # type: ignore[arg-type]


def read_numbers(frames: torch.Tensor, source_size: tuple[int, int] | None = None) -> list[int]:
    """The number in each of (N, 3, S, S): ``source_size`` (H, W) for CLIP frames (the whole picture, squeezed), ``None``
    for sync frames (the centre square fills the frame)."""
    size = frames.shape[-1]
    height, width = source_size or (size, size)
    side = min(height, width)
    numbers = []
    for frame in frames.float().mean(dim=1):
        number = 0
        for bit in range(BITS):
            row, column = divmod(bit, CELLS)
            y = ((height - side) / 2 + side * (row + 0.5) / CELLS) / height * size
            x = ((width - side) / 2 + side * (column + 0.5) / CELLS) / width * size
            patch = frame[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
            number |= int(patch.mean() > 127) << bit
        numbers.append(number)
    return numbers


def expected_picks(stamps: list[float], fps: int, duration_s: float) -> list[int]:
    """By the rule's definition, not its loop: for every accumulated target the first frame that is not before it."""
    seen = [stamp for stamp in stamps if stamp <= duration_s]
    picks: list[int] = []
    target = 0.0
    while len(picks) < int(fps * duration_s):
        index = next((i for i, stamp in enumerate(seen) if stamp >= target), None)
        if index is None:
            break
        picks.append(index)
        target += 1 / fps
    return picks


def expected_lists(stamps: list[float], duration_s: float) -> tuple[list[int], list[int]]:
    """CLIP and sync picks after the shortening rule."""
    clip, sync = expected_picks(stamps, 8, duration_s), expected_picks(stamps, 25, duration_s)
    _, clip_count, sync_count = settle_duration(duration_s, len(clip), len(sync))
    return clip[:clip_count], sync[:sync_count]


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Writes (a, b, c, d) of a display matrix into an mp4's track header, as a phone would."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
