"""Starting ``rank_worker`` under torchrun, as a user starts training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from trainer.engine.distributed import Ranks

ROOT = Path(__file__).resolve().parents[2]
ONE = Ranks(0, 1, 0, torch.device("cpu"))
NEEDS_GLOO = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo, which ranks on a CPU speak"
)


def command(ranks: int, jobs: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Writes JOBS.json into ``folder``; what to start."""
    path = folder / "JOBS.json"
    path.write_text(json.dumps({"jobs": list(jobs)}))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*start, "-m", "tests.trainer.rank_worker", str(path)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def launch(ranks: int, jobs: Sequence[Mapping[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    started = command(ranks, jobs, folder)
    return subprocess.run(started, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280, check=False)


def results(ranks: int, jobs: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What each job gave, on all ranks together."""
    done = launch(ranks, jobs, folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads((folder / "JOBS.json.out").read_text())["results"])


def furthest(a: Sequence[float], b: Sequence[float]) -> float:
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b, strict=True))
