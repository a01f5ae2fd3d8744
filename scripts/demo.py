"""The demo: draws a small silent video (a ball that bounces), gives it sound with ``mmaudio generate``, leaves an mp4.

python scripts/demo.py [FOLDER]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmaudio_core.media.make_video import write_silent_video

WIDTH, HEIGHT, FPS, SECONDS = 320, 240, 25, 4
RADIUS, FLOOR, BOUNCE_S = 18, 200, 0.8


def scene() -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3): a ball on parabolas, one bounce every 0.8 s, on a floor."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for k in range(FPS * SECONDS):
        t = k / FPS
        phase = (t % BOUNCE_S) / BOUNCE_S
        height = 4 * phase * (1 - phase) * (FLOOR - 3 * RADIUS)
        centre_x, centre_y = 40 + 240 * t / SECONDS, FLOOR - RADIUS - height
        frame = np.full((HEIGHT, WIDTH, 3), 225, np.uint8)
        frame[FLOOR:] = (120, 90, 60)
        frame[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= RADIUS**2] = (200, 40, 30)
        yield frame


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo_out")
    folder.mkdir(parents=True, exist_ok=True)
    silent, sound = folder / "silent.mp4", folder / "with_sound.mp4"
    write_silent_video(scene(), FPS, silent)
    command = [
        sys.executable,
        "-m",
        "mmaudio_core",
        "generate",
        str(silent),
        "--prompt",
        "a ball bounces",
        "--output",
        str(sound),
    ]
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
