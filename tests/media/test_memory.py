"""What reading costs, and what importing costs. Both run in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmaudio_core.media.make_video import write_silent_video

ROOT = Path(__file__).parents[2]
MEASURE = """
import sys
from mmaudio_core.media.video import read_video
video = read_video(sys.argv[1], 8.0, start_s=float(sys.argv[2]))
assert video.duration_s == 8.0 and tuple(video.clip.shape) == (64, 3, 384, 384), video.clip.shape
assert tuple(video.sync.shape) == (200, 3, 224, 224), video.sync.shape
# Not ru_maxrss, which a child process inherits from its parent.
line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
sys.stdout.write(str(int(line.split()[1]) * 1024))
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
IMPORTS = """
import importlib, pkgutil, sys
import mmaudio_core.media as media
for module in pkgutil.iter_modules(media.__path__):
    importlib.import_module(f"mmaudio_core.media.{module.name}")
heavy = {"av", "torchaudio", "torchvision", "PIL"} & set(sys.modules)
sys.stdout.write(",".join(sorted(heavy)))
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def noise_frames(count: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, height // 120, width // 120, 3), dtype=np.uint8)
    return [np.kron(image, np.ones((120, 120, 1), np.uint8)) for image in coarse]


def repeat_file(source: Path, target: Path, times: int, seconds: Fraction) -> Path:
    """The packets of ``source`` over and over, their time stamps moved on: a long video at the price of a short one."""
    with av.open(str(source)) as short, av.open(str(target), "w") as long:
        stream = short.streams.video[0]
        copy = long.add_stream_from_template(stream, opaque=True)
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in short.demux(stream) if p.size]
        step = int(seconds / stream.time_base)
        for turn in range(times):
            for data, pts, dts, keyframe in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.time_base = pts + turn * step, dts + turn * step, stream.time_base
                packet.is_keyframe = keyframe
                packet.stream = copy
                long.mux(packet)
    return target


@on_linux
def test_ten_minutes_of_1080p_stay_below_a_gigabyte(tmp_path: Path) -> None:
    short = write_silent_video(
        noise_frames(30, 1080, 1920), 30, tmp_path / "short.mp4", options={"preset": "ultrafast", "bf": "0"}
    )
    path = repeat_file(short, tmp_path / "long.mp4", 600, Fraction(1))
    with av.open(str(path)) as container:
        assert container.duration / 1_000_000 == pytest.approx(600, abs=0.1)
    for start_s in ("0", "590.5"):
        assert int(run(MEASURE, str(path), start_s)) < 1_000_000_000, "peak resident memory in bytes"


@on_linux
@pytest.mark.slow  # encoding 4K takes a while on two cores
def test_4k_stays_below_a_gigabyte_and_a_half(tmp_path: Path) -> None:
    short = write_silent_video(
        noise_frames(30, 2160, 3840), 30, tmp_path / "short.mp4", options={"preset": "ultrafast", "bf": "0"}
    )
    path = repeat_file(short, tmp_path / "long.mp4", 60, Fraction(1))
    assert int(run(MEASURE, str(path), "0")) < 1_500_000_000


def test_importing_loads_no_codec_packages() -> None:
    assert run(IMPORTS) == ""
