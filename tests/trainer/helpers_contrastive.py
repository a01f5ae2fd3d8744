"""Made-up videos for the training of CLIP and Synchformer: flashes of a colour, with a tone of a pitch at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio
from trainer.contrastive.config import AnyConfig, ClipConfig, SyncConfig, load
from trainer.data.manifest import Row, write_manifest

RATE_HZ, FPS, SIDE = 16_000, 25, 32
COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230), "white": (240, 240, 240)}
PITCHES_HZ = (300.0, 800.0, 2000.0, 5000.0)
CLIP_MODEL = (
    "model.image_size=32",
    "model.patch=16",
    "model.vision_width=32",
    "model.vision_head_width=16",
    "model.vision_layers=1",
    "model.text_width=16",
    "model.text_layers=1",
    "model.embed_dim=16",
)
SYNC_MODEL = ("model.width=32", "model.heads=2", "model.blocks=1", "model.mlp_width=64", "model.grid=2")


def write_flashes(path: Path, kind: int, seed: int, frames: int = 64) -> Path:
    """Two to four flashes of two frames in the colour ``kind``, each with a tone of 80 ms."""
    rng = np.random.default_rng(seed)
    name = list(COLOURS)[kind]
    pictures = np.full((frames, SIDE, SIDE, 3), 60, np.uint8)
    pictures[:, : SIDE // 4] = np.array(COLOURS[name]) // 2  # so that a frame without a flash tells the colour too
    samples = np.zeros(frames * RATE_HZ // FPS, np.float32)
    for at in rng.choice(np.arange(1, frames // 4), size=int(rng.integers(2, 5)), replace=False) * 4:
        pictures[at : at + 2] = COLOURS[name]
        first, last = (k * RATE_HZ // FPS for k in (at, at + 2))
        samples[first:last] = 0.5 * np.sin(2 * np.pi * PITCHES_HZ[kind] * np.arange(last - first) / RATE_HZ)
    write_silent_video(pictures, FPS, path, options={"crf": "10", "preset": "ultrafast"})
    return mux_audio(path, (samples, RATE_HZ), path)


def write_clips(folder: Path, train: int = 16, val: int = 4) -> Path:
    """A manifest of captioned videos, with a damaged and a missing one among them."""
    rows = []
    names = list(COLOURS)
    for i in range(train + val):
        write_flashes(folder / f"{i}.mp4", i % len(names), i)
        rows.append(Row(f"c{i}", f"{i}.mp4", f"a {names[i % len(names)]} flash", split="train" if i < train else "val"))
    (folder / "damaged.mp4").write_bytes((folder / "0.mp4").read_bytes()[:2000])
    rows += [Row("damaged", "damaged.mp4", "a flash"), Row("gone", "gone.mp4", "a flash")]
    write_manifest(rows, folder / "data.tsv")
    return folder / "data.tsv"


def clip_config(manifest: Path, folder: Path, *changes: str) -> ClipConfig:
    """A run of a tiny CLIP."""
    few = ("train.steps=6", "train.batch=8", "log.every=1", "log.measure_every=0", "checkpoint.every=3", "log.measure_clips=4")
    names = (f"data.manifest={manifest}", f"train.folder={folder}", "data.duration_s=2.56", "optim.warmup_steps=2")
    return load(ClipConfig, "clip_world", (*names, *few, *CLIP_MODEL, "optim.lr=0.003", *changes))


def sync_config(manifest: Path, folder: Path, *changes: str) -> SyncConfig:
    """A run of a tiny Synchformer."""
    few = ("train.steps=6", "train.batch=4", "log.every=1", "log.measure_every=0", "checkpoint.every=3", "log.measure_clips=4")
    names = (f"data.manifest={manifest}", f"train.folder={folder}", "data.duration_s=2.56", "optim.warmup_steps=2")
    contrast = ("data.segments=4", "data.kept_segments=0", "loss.segments=1", "loss.tokens=1", "loss.outline=0")
    return load(SyncConfig, "sync_world", (*names, *few, *SYNC_MODEL, *contrast, "optim.lr=0.003", *changes))


CONFIGS: dict[str, Callable[..., AnyConfig]] = {"clip": clip_config, "sync": sync_config}
