"""Mel decoder and vocoder: the modules as they are against the fast paths, with made-up weights, on a CPU under Linux.

``python -m benchmarks.sound [--seconds 8] [--format 44k] [--runs 3] [--threads N] [--quick] [--json FILE]``; ``--quick`` takes
narrow networks and says only that it runs. Each path runs in a process of its own, so that the peak of memory is its own; the
processor's seconds, for the program and for the system (page faults), stand beside the clock's. Medians of ``runs`` after one
call that also lays out the weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.pipeline.sound import decode_latents, vocode_mel
from mmaudio_core.spec.model import VAES, VOCODERS
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.types import Latents, Mel
from mmaudio_core.weights.build import build_module

Row = dict[str, Any]
QUICK_WIDTH = {"vae": 16, "vocoder": 64}


def made_up(part: str, audio_format: str, quick: bool) -> Any:
    """The network with the weights that its constructor draws, ready for inference."""
    spec: Any = {"vae": VAES, "vocoder": VOCODERS}[part][audio_format]
    torch.manual_seed(0)
    module: Any = build_module(replace(spec, width=QUICK_WIDTH[part]) if quick else spec).eval().requires_grad_(False)
    return module.fold_weights_() if part == "vae" else module


def measure(part: str, audio_format: str, seconds: float, plain: bool, runs: int, threads: int, quick: bool) -> Row:
    """Medians for one part by one path, and the output's norm, which both paths must share."""
    if threads:
        torch.set_num_threads(threads)
    module = made_up(part, audio_format, quick)
    tokens = sequence_lengths(seconds, module.spec.audio).latent
    generator = torch.Generator().manual_seed(1)
    latents = Latents(torch.randn(1, tokens, module.spec.audio.latent_dim, generator=generator), seconds)
    mel = Mel(torch.randn(1, module.spec.mel_bins, 2 * tokens, generator=generator), seconds)
    times: list[tuple[float, float, float]] = []
    norm = 0.0
    for _ in range(runs + 1):
        before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        if part == "vae":
            out = decode_latents(module, latents, plain=plain).values
        else:
            out = vocode_mel(module, mel, plain=plain).samples
        clock_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
        times.append((clock_s, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime))
        norm = out.norm().item()
    clock_s, user_s, system_s = (statistics.median(column) for column in zip(*times[1:], strict=True))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "part": part,
        "path": "plain" if plain else "fast",
        "first_s": times[0][0],
        "clock_s": clock_s,
        "user_s": user_s,
        "system_s": system_s,
        "peak_mb": peak_mb,
        "norm": norm,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--format", choices=sorted(VOCODERS), default="44k")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{args.seconds:g} s at {args.format}, float32, torch {torch.__version__}")
    print(f"{'part':<9}{'path':<7}{'first s':>9}{'clock s':>9}{'user s':>9}{'system s':>10}{'peak MB':>9}{'norm':>12}")
    rows = []
    for part in ("vae", "vocoder"):
        for plain in (True, False):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                given = (part, args.format, args.seconds, plain, args.runs, args.threads, args.quick)
                row = pool.apply(measure, given)
            rows.append(row)
            numbers = "".join(f"{row[k]:>{w}.2f}" for k, w in (("first_s", 9), ("clock_s", 9), ("user_s", 9), ("system_s", 10)))
            print(f"{row['part']:<9}{row['path']:<7}{numbers}{row['peak_mb']:>9.0f}{row['norm']:>12.5g}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
