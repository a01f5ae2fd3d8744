"""Made-up recordings, and short trainings of tiny VAEs and vocoders."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.adversarial.config import AnyConfig
from trainer.adversarial.loop import train
from trainer.adversarial.step import Places
from trainer.cli import main
from trainer.data.manifest import Row, write_manifest
from trainer.engine.distributed import Ranks

RATE_HZ = 16_000
ONE = Ranks(0, 1, 0, torch.device("cpu"))


def chirps(duration_s: float, seed: int) -> np.ndarray:
    """float32 (N,): tones that rise and fall over quiet noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * (300 * (seed + 1) * t + 20 * np.sin(2 * np.pi * (seed + 1) * t))
    loudness = 0.3 * (0.1 + np.sin(np.pi * 2 * t) ** 2)
    return (loudness * np.sin(phase) + 0.001 * rng.standard_normal(t.size)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_data(folder: Path, count: int = 3, duration_s: float = 2.5) -> Path:
    """A manifest of ``count`` recordings."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        write_wav(folder / f"{i}.wav", chirps(duration_s, i))
        rows.append(Row(f"r{i}", f"{i}.wav"))
    write_manifest(rows, folder / "data.tsv")
    return folder / "data.tsv"


def run_command(kind: str, manifest: Path, folder: Path, *changes: str, resume: bool = False) -> int:
    """``mmaudio-train vae|vocoder`` with the smoke configuration."""
    changes = (f"data.manifest={manifest}", f"train.folder={folder}", *changes)
    sets = [part for change in changes for part in ("--set", change)]
    return main([kind, f"{kind}_smoke", *sets, "--quiet", "--debug", *(["--resume"] if resume else [])])


def run(config: AnyConfig, resume: bool = False) -> int:
    return train(config, resume, quiet=True)


def log_of(folder: Path, name: str) -> dict[int, float]:
    """Step -> value of one scalar."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def lowered(values: dict[int, float], share: float) -> bool:
    """Whether the mean of the last three values is at most ``share`` of the first."""
    seen = [values[step] for step in sorted(values)]
    return sum(seen[-3:]) / 3 <= share * seen[0]


def tags(folder: Path) -> dict[str, Any]:
    """What TensorBoard finds in a run's folder, by kind."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found.Tags()


def pieces(samples: torch.Tensor, step: int, count: int) -> list[tuple[torch.Tensor, Places]]:
    """A batch (B, N) in ``count`` pieces, as the loop gives them to an update."""
    size = len(samples) // count
    parts = enumerate(samples.split(size))
    return [(part, Places(0, step, tuple(range(i * size, (i + 1) * size)))) for i, part in parts]
