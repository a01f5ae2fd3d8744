"""``mmaudio-train run`` under torchrun: two ranks, whole or sharded, go the way of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.weights.safetensors_file import MappedTensors, read_header
from trainer.cli import main

from .helpers_c import made_up_shards
from .helpers_ranks import NEEDS_GLOO, ROOT, environment, furthest

pytestmark = [pytest.mark.slow, NEEDS_GLOO]


def arguments(data: Path, run: Path, *more: str) -> list[str]:
    changes = [f"data.train={data / 'train'}", f"data.validation={data / 'val'}", f"train.folder={run}", "log.every=1"]
    return ["run", "smoke_cpu", "--quiet", "--debug", "--set", *changes, *more]


def lines(run: Path, event: str | None = None) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in every if line.get("event") == event]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made_up_shards(folder / "train", 12)
    made_up_shards(folder / "val", 5, seed=1)
    return folder


@pytest.fixture(scope="module")
def alone(data: Path) -> Path:
    assert main(arguments(data, data / "alone")) == 0
    return data / "alone"


@pytest.mark.parametrize(("mode", "accumulation"), [("ddp", 2), ("fsdp", 1)])
def test_two_ranks_equal_one(data: Path, alone: Path, mode: str, accumulation: int) -> None:
    run = data / mode
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer"]
    asked = arguments(data, run, f"parallel.mode={mode}", f"train.accumulation={accumulation}")
    done = subprocess.run(
        [*start, *asked], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    limit = 1e-5 if mode == "ddp" else 1e-4
    for name in ("loss", "grad_norm"):
        assert furthest([line[name] for line in lines(run)], [line[name] for line in lines(alone)]) < limit, name
    for ours, theirs in zip(lines(run, "validation"), lines(alone, "validation"), strict=True):
        assert ours == pytest.approx(theirs, abs=limit)
    for path in sorted((alone / "ema").iterdir()):
        other = run / "ema" / path.name
        tensors, others = MappedTensors(path, read_header(path)), MappedTensors(other, read_header(other))
        assert set(tensors) == set(others)
        for name in tensors:
            torch.testing.assert_close(others[name], tensors[name], rtol=1e-3, atol=1e-4)
    names = [
        sorted(p.relative_to(folder / "previews") for p in (folder / "previews").rglob("*.flac")) for folder in (run, alone)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        sounds = [load_sound(folder / "previews" / name).samples for folder in (run, alone)]
        torch.testing.assert_close(sounds[0], sounds[1], rtol=0, atol=1e-3)
