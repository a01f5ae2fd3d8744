"""CLIP and Synchformer: the modules as they are against the fast paths, with made-up weights.

``python -m benchmarks.encoders [image text sync] [--device cpu] [--dtype float32] [--runs 3] [--quick] [--json FILE]``;
``--quick`` takes small towers and says only that it runs. Both ways run in turns, so that a busy machine harms both alike; the
processor's seconds stand beside the clock's, and the largest difference, relative to the largest value, beside both.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.kernels.sets import choose_kernels
from mmaudio_core.spec.model import CLIPSpec, PartSpec, SynchformerSpec
from mmaudio_core.weights.build import build_module

QUICK: dict[str, PartSpec] = {
    "clip": CLIPSpec(64, 224, 3, 128, 64, 32, 77, 49408, 64, 1, 2),
    "synchformer": SynchformerSpec(width=64, heads=1, blocks=2, mlp_width=128),
}
FULL: dict[str, PartSpec] = {"clip": CLIPSpec(), "synchformer": SynchformerSpec()}
PROMPTS = ["rain on a tin roof", "a dog barks twice", "waves", "speech, music"]
Row = dict[str, Any]


def made_up(spec: PartSpec, device: str, dtype: torch.dtype, **towers: bool) -> Any:
    """The module of ``spec`` with uniform weights of about the usual size."""
    with torch.device("meta"):
        module = build_module(spec, **towers).to(dtype)
    module = module.to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for weight in module.parameters():
        bound = (3 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.3
        weight.uniform_(-bound, bound)
    return module


def compare(what: str, calls: dict[str, Callable[[], Tensor]], runs: int, device: str) -> Row:
    """Least seconds of ``runs`` rounds of all ``calls`` in turns, the first call of each left out."""
    outs = {name: call().float() for name, call in calls.items()}
    first = next(iter(outs.values()))
    row: Row = {"what": what}
    for name, out in outs.items():
        row[name] = {
            "clock_s": float("inf"),
            "cpu_s": float("inf"),
            "differs": ((out - first).abs().max() / first.abs().max()).item(),
        }
    for _ in range(runs):
        for name, call in calls.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            took = {"clock_s": time.perf_counter() - begin, "cpu_s": time.process_time() - begin_cpu}
            row[name].update({key: min(row[name][key], value) for key, value in took.items()})
    print(f"{what}: load {load()}", flush=True)
    return row


def load() -> float | None:
    """Processes that wanted a processor during the last minute, where the system says."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def pixels(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def images(spec: Any, device: str, dtype: torch.dtype, runs: int) -> list[Row]:
    clip = made_up(spec, device, dtype, text=False)
    clip.kernels = choose_kernels("auto", torch.device(device))
    found = []
    for count in (1, 2) if device == "cpu" else (1, 8, 64):
        frames = pixels(count, spec.image_size)
        calls = {"plain": partial(clip.encode_image, frames, plain=True), "fast": partial(clip.encode_image, frames)}
        found.append(compare(f"CLIP image, {count} frames", calls, runs, device))
    return found


def texts(spec: Any, device: str, dtype: torch.dtype, runs: int) -> list[Row]:
    clip = made_up(spec, device, dtype, image=False)

    def anew(prompts: list[str]) -> Tensor:
        with torch.no_grad():
            clip.ln_final.bias.add_(0)  # changed in place, as far as one can see: what was kept is forgotten
        return clip.encode_text(prompts)

    found = []
    for count in (1, 2):
        prompts = PROMPTS[:count]
        calls = {
            "plain": partial(clip.encode_text, prompts, plain=True),
            "fast": partial(anew, prompts),
            "again": partial(clip.encode_text, prompts),
        }
        found.append(compare(f"CLIP text, {count} prompts", calls, runs, device))
    return found


def segments(spec: Any, device: str, dtype: torch.dtype, runs: int) -> list[Row]:
    tower = made_up(spec, device, dtype)
    tower.kernels = choose_kernels("auto", torch.device(device))
    found = []
    for count in (2, 4) if device == "cpu" else (4, 24):
        frames = pixels(8 + 8 * count, spec.image_size)
        calls = {"plain": partial(tower.encode, frames, plain=True), "fast": partial(tower.encode, frames)}
        found.append(compare(f"Synchformer, {count} segments", calls, runs, device))
    return found


STAGES: dict[str, tuple[str, Callable[..., list[Row]]]] = {
    "image": ("clip", images),
    "text": ("clip", texts),
    "sync": ("synchformer", segments),
}


def table(found: list[Row]) -> str:
    lines = ["| | way | clock s | processor s | x clock | x processor | differs |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in found:
        plain = row["plain"]
        for name in (key for key in row if key != "what"):
            own = row[name]
            ratios = [plain[key] / max(own[key], 1e-9) for key in ("clock_s", "cpu_s")]
            numbers = f"{own['clock_s']:.4f} | {own['cpu_s']:.4f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {own['differs']:.1e}"
            lines.append(f"| {row['what']} | {name} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoders", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stages", nargs="*", help=f"{', '.join(STAGES)}; all where none is given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: bfloat16 on cuda, float32 on cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; run with --device cpu")
    dtype = getattr(torch, given.dtype or ("bfloat16" if given.device == "cuda" else "float32"))
    machine = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    result: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "dtype": str(dtype), "quick": given.quick}
    if unknown := set(given.stages) - set(STAGES):
        parser.error(f"no stage is named {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    specs = QUICK if given.quick else FULL
    chosen = [STAGES[name] for name in given.stages or STAGES]
    result["rows"] = [row for kind, stage in chosen for row in stage(specs[kind], given.device, dtype, given.runs)]
    result["load"] = load()
    print(f"{machine}; torch {torch.__version__}; {dtype}; load {result['load']}{'; quick' if given.quick else ''}\n")
    print(table(result["rows"]))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
