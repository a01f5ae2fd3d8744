"""Everything that needs a CUDA device in one command of at most eight minutes: tests of kernels and attention, then tables.

``python -m benchmarks.gpu [--out DIR] [--minutes 8]``; prints a table of what ran and how it ended, and leaves each command's
output in DIR. Runs from the repository's root with any Python that has torch, triton, pytest, pytest-timeout and open_clip.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/kernels", "tests/attention", "tests/core/test_fast_flow.py", "tests/core/test_gpu.py")


@dataclass(frozen=True)
class Job:
    """A command and the share of the time that it may take."""

    name: str
    command: tuple[str, ...]
    share: float


def jobs(out: Path) -> list[Job]:
    """In the order in which they matter if time runs out."""
    python = sys.executable
    bench = (python, "-m", "mmaudio_core", "bench", "--device", "cuda")
    step = ("--stages", "step,vocoder", "--backends", "plain,torch,triton,cuda,compile", "--seconds-per-row", "1")
    return [
        Job("tests", (python, "-m", "pytest", "-q", "-m", "not slow and not comfyui", *TESTS), 0.25),
        Job("bench", (*bench, "--limit", "2.6", "--json", str(out / "bench.json")), 0.35),
        Job("kernels", (python, "-m", "benchmarks.kernels", "--device", "cuda", "--quick"), 0.12),
        Job("step", (*bench, "--variants", "small_16k,large_44k_v2", *step, "--limit", "1.2"), 0.16),
        Job("attention", (python, "-m", "benchmarks.attention", "--device", "cuda", "--quick"), 0.06),
        Job("precision", (python, "-m", "benchmarks.precision", "--device", "cuda"), 0.06),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where outputs are left")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default 8)")
    parser.add_argument("--only", action="append", help="run just this job (may be repeated)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    end, rows = time.monotonic() + 60 * args.minutes, []
    for job in jobs(args.out):
        if args.only and job.name not in args.only:
            continue
        limit_s = min(60 * args.minutes * job.share, end - time.monotonic())
        rows.append((job.name, *run(job, args.out / f"gpu_{job.name}.txt", limit_s)))
    print("\n" + "\n".join(f"{name:<10} {how:<22} {seconds:6.1f} s" for name, how, seconds in rows))
    return 0 if all(how == "ended with 0" for _, how, _ in rows) else 1


def run(job: Job, log: Path, limit_s: float) -> tuple[str, float]:
    """Runs a job, its output to the screen and to ``log``; how it ended, and after how many seconds."""
    if limit_s <= 5:
        return "no time was left", 0.0
    print(f"== {job.name}: {' '.join(job.command[1:])}", flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            job.command, cwd=ROOT, timeout=limit_s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        how, output = f"ended with {done.returncode}", done.stdout
    except subprocess.TimeoutExpired as error:
        how, output = "stopped, out of time", (error.stdout or b"").decode(errors="replace")
    log.write_text(output, encoding="utf-8")
    print(output, flush=True)
    return how, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
