"""Training steps of the flow network: samples per second, memory, and what share of the device's matrix rate they use.

``python -m benchmarks.train_step [--device cuda] [--variants small_16k ...] [--batches 16 64] [--ways plain again] [--quick]``

A step is forward, backward, clipping and AdamW on made-up samples of 8 s, all inputs there, in bf16 (float32 on a CPU). FLOPs
are those of the model: counted on one sample without recomputation, for a forward and a backward. "days" are those of the
paper's 300,000 steps of 512 samples at that rate on this device alone. Ways: plain; again (gradient checkpointing: blocks are
computed again); compile (torch.compile of the blocks); both. A row that would not end within the time is left out.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmaudio_core.bench.made_up import fill_
from mmaudio_core.bench.timing import ceilings, measure
from mmaudio_core.spec.model import VARIANTS, FlowSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.model import FlowNetwork
from trainer.config.schema import DropoutConfig, OptimConfig
from trainer.data.batch import Batch
from trainer.engine.distributed import Ranks
from trainer.flow.objective import Draws, draws
from trainer.flow.optim import make_optimizer
from trainer.flow.step import train_step
from trainer.flow.trainable import TrainableFlow, prepare_blocks

from .kernels.__main__ import machine

DURATION_S = 8.0
PAPER_SAMPLES = 300_000 * 512
QUICK = FlowSpec(20, 64, 1, joint_blocks=1, audio_blocks=1, clip_dim=64, sync_dim=64, text_dim=16)
WAYS = {"plain": (False, False), "again": (True, False), "compile": (False, True), "both": (True, True)}
DEFAULT_VARIANTS = ("small_16k", "small_44k", "medium_44k", "large_44k_v2")
HEAD = ("variant", "batch", "way", "ms", "samples/s", "peak GB", "TFLOP/sample", "TFLOP/s", "%", "days")


@dataclass(frozen=True)
class Case:
    variant: str
    batch: int
    way: str

    @property
    def spec(self) -> FlowSpec:
        return VARIANTS.get(self.variant, QUICK)


def made_up_batch(spec: FlowSpec, count: int, device: torch.device) -> tuple[Batch, Draws]:
    """``count`` samples with video and text, and their draws."""
    lengths = sequence_lengths(DURATION_S, spec.audio)
    generator = torch.Generator().manual_seed(0)

    def normal(tokens: int, width: int) -> torch.Tensor:
        return torch.randn(count, tokens, width, generator=generator)

    here = torch.ones(count, dtype=torch.bool)
    batch = Batch(
        ids=tuple(map(str, range(count))),
        positions=tuple(range(count)),
        latent_mean=normal(lengths.latent, spec.latent_dim),
        latent_std=normal(lengths.latent, spec.latent_dim).abs(),
        clip=normal(lengths.clip, spec.clip_dim).half(),
        sync=normal(lengths.sync, spec.sync_dim).half(),
        text=normal(spec.text_tokens, spec.text_dim).half(),
        has_video=here,
        has_text=here,
    )
    drawn = draws(0, 0, batch.positions, (lengths.latent, spec.latent_dim), spec, DropoutConfig())
    return batch.to(device), drawn.to(device)


def made_up_module(case: Case, device: torch.device, precision: str) -> TrainableFlow:
    with torch.device("meta"):
        network = FlowNetwork(case.spec)
    network = network.to_empty(device=device)
    fill_(network)
    prepare_blocks(network, *WAYS[case.way])
    return TrainableFlow(network, precision)


def count_flops(case: Case, device: torch.device, precision: str) -> float:
    """FLOPs of a forward and a backward of one sample."""
    module = made_up_module(Case(case.variant, 1, "plain"), device, precision)
    batch, drawn = made_up_batch(case.spec, 1, device)
    # Attention written out, since not every fused kernel is known to the counter.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(batch, drawn).mean().backward()
    return float(counter.get_total_flops())


def run_case(case: Case, device: torch.device, precision: str, seconds: float, matrix_flops: float) -> tuple[str, ...]:
    """One line of the table."""
    try:
        flops = count_flops(case, device, precision)
        module = made_up_module(case, device, precision)
        batch, drawn = made_up_batch(case.spec, case.batch, device)
        parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = make_optimizer(parameters, OptimConfig(), device)
        ranks = Ranks(0, 1, 0, device)

        def step() -> object:
            return train_step(module, parameters, optimizer, [(batch, drawn)], 1, 1e-9, 1.0, ranks)

        timing = measure(step, device, seconds)
    except torch.cuda.OutOfMemoryError:
        return (case.variant, str(case.batch), case.way, "out of memory", *[""] * (len(HEAD) - 4))
    rate = case.batch / timing.median_s
    numbers = (
        f"{timing.median_s * 1e3:.1f}",
        f"{rate:.2f}",
        f"{timing.peak_bytes / 1e9:.2f}",
        f"{flops / 1e12:.4f}",
        f"{flops * rate / 1e12:.3f}",
        f"{100 * flops * rate / matrix_flops:.0f}",
        f"{PAPER_SAMPLES / rate / 86_400:.1f}",
    )
    return (case.variant, str(case.batch), case.way, *numbers)


def cases(options: argparse.Namespace) -> list[Case]:
    """What is measured, in the order in which it matters if time runs out."""
    if options.quick:
        return [Case("tiny", 2, way) for way in options.ways or ("plain", "again")]
    variants = options.variants or (DEFAULT_VARIANTS if options.device == "cuda" else DEFAULT_VARIANTS[:1])
    batches = options.batches or ((16, 64) if options.device == "cuda" else (2,))
    ways = options.ways or ("plain", "again")
    return [Case(variant, batch, way) for way in ways for variant in variants for batch in batches]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--batches", nargs="+", type=int, metavar="N", help="samples of a step")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), help="default: plain again")
    parser.add_argument("--precision", choices=("bf16", "float32"), help="default: bf16 on cuda, float32 on cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default 8)")
    parser.add_argument("--quick", action="store_true", help="a tiny network: whether it runs, not how fast")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; run with --device cpu")
    device, end_s = torch.device(options.device), time.monotonic() + 60 * options.minutes
    precision = options.precision or ("bf16" if options.device == "cuda" else "float32")
    limits = ceilings(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    print(f"{machine(options.device)}; {precision}{'; quick' if options.quick else ''}. {limits.sentence()}\n")
    print("| " + " | ".join(HEAD) + " |\n|---|---:|---|" + "---:|" * (len(HEAD) - 3), flush=True)
    slowest_s = 0.0
    for case in cases(options):
        began_s = time.monotonic()
        if began_s + slowest_s > end_s:
            print(f"| {case.variant} | {case.batch} | {case.way} | left out: no time |", flush=True)
            continue
        row = run_case(case, device, precision, 0.2 if options.quick else 3.0, limits.matrix_flops)
        print("| " + " | ".join(row) + " |", flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
