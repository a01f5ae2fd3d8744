"""``python -m benchmarks.precision``: how far each stage moves from float32 in half precision and with weights kept in fp8.

The weights are made up: what the constructors draw, and normal numbers of 0.02 where they leave zeros. Such networks are more
sensitive than trained ones, whose activations are tamer; the numbers are upper marks, and comparable with each other only.
Errors are norms of the difference over the norm of the float32 result on the same device.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.pipeline.device import computes_in
from mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from mmaudio_core.spec.model import (
    VAES,
    VARIANTS,
    VOCODERS,
    CLIPSpec,
    FlowSpec,
    PartSpec,
    SynchformerSpec,
    VAESpec,
    VocoderSpec,
)
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.types import Features
from mmaudio_core.vocoder.chunked import vocode
from mmaudio_core.weights.build import build_module
from mmaudio_core.weights.fp8 import KINDS, converts_float8, store_in_float8_

from .kernels.__main__ import machine

SMALL: dict[str, PartSpec] = {
    "clip": CLIPSpec(256, 112, 6, 320, 80, 14, 77, 1000, 256, 4, 6),
    "synchformer": SynchformerSpec(width=192, heads=3, blocks=4, mlp_width=768),
    "flow": FlowSpec(40, 192, 3, 2, 3, v2=True),
    "vae": VAESpec(128, 40, 64),
    "vocoder": VocoderSpec(128, 128, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final_bias=False, final_tanh=False),
}
FULL: dict[str, PartSpec] = {
    "clip": CLIPSpec(),
    "synchformer": SynchformerSpec(),
    "flow": VARIANTS["large_44k_v2"],
    "vae": VAES["44k"],
    "vocoder": VOCODERS["44k"],
}
SIZES = {"small": SMALL, "full": FULL}


@dataclass(frozen=True)
class Format:
    """A way to hold and compute: ``storage`` "fp8" for the large weights, ``dtype`` for everything that is computed."""

    name: str
    dtype: torch.dtype
    storage: str | None = None


FORMATS = (
    Format("float16", torch.float16),
    Format("bfloat16", torch.bfloat16),
    Format("fp8 weights", torch.float32, "fp8"),
    Format("fp8 + bfloat16", torch.bfloat16, "fp8"),
)


@dataclass(frozen=True)
class Row:
    """Relative errors of one stage by the name of the format; None where the device does not have it, or the part no fp8."""

    stage: str
    errors: dict[str, float | None]


def made_up(spec: PartSpec, device: torch.device) -> Any:
    """A module with drawn weights, the same ones everywhere."""
    torch.manual_seed(0)
    module = build_module(spec)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if not value.any() and "gain" not in name:
                value.normal_(std=0.02)
    return module.requires_grad_(False).eval().to(device)


def in_format(module: nn.Module, kind: str, form: Format) -> Any:
    """A copy of ``module`` as a loader would have made it."""
    changed: Any = copy.deepcopy(module).to(form.dtype)
    if form.storage is not None:
        # From the weights as they are, not as the format for computing rounds them.
        changed = copy.deepcopy(module)
        store_in_float8_(changed, kind, form.dtype)
        changed.to(form.dtype)
    return changed.fold_weights_() if kind == "vae" else changed


def stages(kind: str, spec: Any, duration_s: float, device: torch.device) -> Iterator[tuple[str, Callable[[Any], Tensor]]]:
    """Names of what ``kind`` computes, and how."""
    torch.manual_seed(1)
    if kind == "clip":
        size = spec.image_size
        frames = F.interpolate(torch.rand(8, 3, size // 14, size // 14), size, mode="bicubic").clamp(0, 1).mul(255).byte()
        tokens = torch.randint(1, spec.vocab_size, (2, spec.context_length))
        yield "clip image", lambda m: m.encode_image(frames)
        yield "clip text", lambda m: m.encode_tokens(tokens)
    elif kind == "synchformer":
        frames = F.interpolate(torch.rand(24, 3, 14, 14), spec.image_size, mode="bicubic").clamp(0, 1).mul(255).byte()
        yield "synchformer", lambda m: m.encode(frames)
    elif kind == "flow":
        yield from flow_stages(spec, duration_s, device)
    elif kind == "vae":
        latents = torch.randn(1, sequence_lengths(duration_s, spec.audio).latent, spec.latent_dim, device=device)
        yield "vae", lambda m: m.decode(latents)
    else:
        mel = torch.randn(1, spec.mel_bins, 2 * sequence_lengths(duration_s, spec.audio).latent, device=device) - 4
        yield "vocoder", lambda m: vocode(m, mel)


def flow_stages(spec: FlowSpec, duration_s: float, device: torch.device) -> Iterator[tuple[str, Callable[[Any], Tensor]]]:
    """Conditions, one velocity, and latents after 25 guided steps."""
    lengths = sequence_lengths(duration_s, spec.audio)
    features = Features(
        clip=F.normalize(torch.randn(1, lengths.clip, spec.clip_dim, device=device), dim=-1),
        sync=torch.randn(1, lengths.sync, spec.sync_dim, device=device),
        text=F.normalize(torch.randn(1, spec.text_tokens, spec.text_dim, device=device), dim=-1),
        duration_s=duration_s,
    )
    x, t = torch.randn(1, lengths.latent, spec.latent_dim, device=device), torch.tensor(0.3)

    def conditions(net: Any) -> Tensor:
        made = net.conditions(features, lengths)
        return torch.cat(
            [v.float().flatten() for v in (made.clip, made.sync_rows, made.text, made.clip_pooled, made.text_pooled)]
        )

    def steps(net: Any) -> Tensor:
        plain = Accelerator(Speed(kernels="plain"))
        return sample_latents(net, features, duration_s, [0], settings=SampleSettings(25), accelerator=plain).tokens

    yield "conditions", conditions
    yield "velocity", lambda net: net.velocity(x, t, net.conditions(features, lengths))
    yield "25 steps", steps


def time_features(spec: FlowSpec) -> Row:
    """The time's sinusoids at 25 steps as the published program rounds them, against float32."""
    embedder = build_module(spec).t_embed  # type: ignore[union-attr]
    t = torch.arange(25) / 25
    exact = embedder.sinusoids(t)  # type: ignore[operator]
    embedder.published_half_precision = True
    names = {form.name: form for form in FORMATS}
    errors = {name: relative(embedder.sinusoids(t, names[name].dtype), exact) for name in ("float16", "bfloat16")}  # type: ignore[operator]
    return Row("time features as published", errors)


def relative(out: Tensor, exact: Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


@torch.no_grad()
def measure(specs: dict[str, PartSpec], device: torch.device, duration_s: float) -> tuple[list[Row], dict[str, dict[str, int]]]:
    """Errors by stage, and the bytes of each part in bfloat16 and with its large weights in fp8."""
    torch.backends.cudnn.allow_tf32 = False  # else the float32 convolutions of a GPU would be no reference
    rows, sizes = [], {}
    for kind, spec in specs.items():
        module = made_up(spec, device)
        exact_module = in_format(module, kind, Format("float32", torch.float32))
        computed = {name: (compute, compute(exact_module).cpu()) for name, compute in stages(kind, spec, duration_s, device)}
        errors: dict[str, dict[str, float | None]] = {name: {} for name in computed}
        del exact_module
        for form in FORMATS:
            possible = computes_in(form.dtype, device) and (not form.storage or (kind in KINDS and converts_float8(device)))
            changed = in_format(module, kind, form) if possible else None
            for name, (compute, exact) in computed.items():
                errors[name][form.name] = None if changed is None else relative(compute(changed).cpu(), exact)
            if changed is not None and form.dtype == torch.bfloat16:
                sizes.setdefault(kind, {})[form.name] = sum(v.nbytes for v in changed.state_dict().values())
        rows += [Row(name, found) for name, found in errors.items()]
        if kind == "flow":
            rows.append(time_features(spec))  # type: ignore[arg-type]
    return rows, sizes


def table(rows: list[Row], sizes: dict[str, dict[str, int]]) -> str:
    names = [form.name for form in FORMATS]
    lines = ["| relative error | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row in rows:
        cells = [row.errors.get(name) for name in names]
        lines.append(f"| {row.stage} | " + " | ".join("" if c is None else f"{c:.2e}" for c in cells) + " |")
    lines += ["", "| MB of weights | bfloat16 | large ones in fp8 |", "|---|---|---|"]
    for kind, found in sizes.items():
        narrow = found.get("fp8 + bfloat16")
        lines.append(f"| {kind} | {found['bfloat16'] / 1e6:.1f} | {'' if narrow is None else f'{narrow / 1e6:.1f}'} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", choices=tuple(SIZES), help="default: full (large_44k_v2) on cuda, small on cpu")
    parser.add_argument("--duration", type=float, help="seconds; default: 8 for full, 1 for small")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; run with --device cpu")
    size = options.size or ("full" if options.device == "cuda" else "small")
    duration_s = options.duration or (8.0 if size == "full" else 1.0)
    rows, sizes = measure(SIZES[size], torch.device(options.device), duration_s)
    about = f"{machine(options.device)}; {size} sizes, {duration_s:g} s, made-up weights"
    print(f"{about}\n\n{table(rows, sizes)}")
    if options.json:
        values = {"about": about, "rows": [asdict(row) for row in rows], "bytes": sizes}
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
