"""What the tests of ranks and checkpoints run under torchrun: a tiny flow network on made-up batches.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.trainer.rank_worker JOBS.json

JOBS.json: ``{"jobs": [{...fields of Job...}]}``; the first rank writes ``{"results": [...]}`` to JOBS.json.out.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.transformer.model import FlowNetwork
from trainer.ema.power import PowerEMA
from trainer.engine import checkpoint
from trainer.engine.distributed import (
    Ranks,
    accumulating,
    clip_gradients,
    mean_over_ranks,
    started,
    unwrapped,
    whole,
    wrap,
)
from trainer.engine.health import Health, HealthRule
from trainer.engine.signals import StopRequest

SPEC = FlowSpec(20, 64, 1, 1, 1, clip_dim=24, sync_dim=16, text_dim=12, text_tokens=5)
TOKENS = {"latent": 8, "clip": 4, "sync": 8}
GLOBAL_BATCH = 8


@dataclass(frozen=True)
class Job:
    """One training run from scratch or from ``resume``.

    kill: [rank, step], ends that rank before that step. signal_at: the last rank gets SIGTERM in that step. bad_batches: a file
    to record in; after the last step, the last rank alone finds that its loss is not finite.
    """

    steps: int = 20
    mode: str = "ddp"
    accumulation: int = 1
    folder: str = ""
    save_every: int = 0
    keep: int = 3
    resume: str = ""
    kill: tuple[int, int] = (-1, -1)
    signal_at: int = -1
    mixed: str = ""
    device: str = "cpu"
    bad_batches: str = ""


class Toy(nn.Module):
    """Batch -> loss of each sample, in one forward, as the wrappers need it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FlowNetwork(SPEC)

    def forward(
        self, latent: Tensor, noise: Tensor, t: Tensor, clip: Tensor, sync: Tensor, text: Tensor, empty: Tensor
    ) -> Tensor:
        network = self.network
        clip = torch.where(empty[:, None, None], network.empty_clip_feat, clip)
        sync = torch.where(empty[:, None, None], network.empty_sync_feat, sync)
        x = (1 - t)[:, None, None] * noise + t[:, None, None] * network.normalize(latent)
        velocity = network(x, t, network.project(clip, sync, text, latent.shape[1]))
        return (velocity - (network.normalize(latent) - noise)).square().mean((1, 2))


def sample(step: int, position: int) -> list[Tensor]:
    """Latent, noise, time, features and whether the visual ones are missing, of one place in one global batch."""
    made = torch.Generator().manual_seed(step * 1000 + position)
    shapes = [
        (TOKENS["latent"], SPEC.latent_dim),
        (TOKENS["latent"], SPEC.latent_dim),
        (),
        (TOKENS["clip"], SPEC.clip_dim),
        (TOKENS["sync"], SPEC.sync_dim),
        (SPEC.text_tokens, SPEC.text_dim),
    ]
    values = [torch.randn(shape, generator=made) for shape in shapes]
    values[2] = values[2].sigmoid()
    return [*values, torch.tensor(position % 4 == 3)]


def build(job: Job, ranks: Ranks) -> tuple[nn.Module, torch.optim.Optimizer, PowerEMA]:
    torch.manual_seed(0)
    toy = Toy()
    with torch.no_grad():
        toy.network.latent_mean.fill_(0.1)
        toy.network.latent_std.fill_(0.9)
        toy.network.latent_std[..., 0] = 1 + 2**-12  # lost in bfloat16
    toy.to(ranks.device)
    blocks = [*toy.network.joint_blocks, *toy.network.fused_blocks]
    mode: Any = job.mode
    module = wrap(toy, ranks, mode, blocks, getattr(torch, job.mixed) if job.mixed else None)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=1e-6)
    inner: Any = unwrapped(module)
    return module, optimizer, PowerEMA(dict(inner.network.named_parameters()))


def run(job: Job, ranks: Ranks) -> dict[str, Any]:
    module, optimizer, ema = build(job, ranks)
    start, losses, norms, stopped = 0, [], [], -1
    if job.resume:
        start = checkpoint.load(Path(job.resume), module, optimizer, ema, ranks)["step"]
    share = GLOBAL_BATCH // ranks.world // job.accumulation
    with StopRequest() as stop:
        for step in range(start, job.steps):
            if (ranks.rank, step) == tuple(job.kill):
                os.kill(os.getpid(), signal.SIGKILL)
            if step == job.signal_at and ranks.rank == ranks.world - 1:
                signal.raise_signal(signal.SIGTERM)
            total = torch.zeros(())
            for part in range(job.accumulation):
                first = (ranks.rank * job.accumulation + part) * share
                batch = [sample(step, position) for position in range(first, first + share)]
                with accumulating(module, last=part == job.accumulation - 1):
                    inputs = [torch.stack(values).to(ranks.device) for values in zip(*batch, strict=True)]
                    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(job.mixed)):
                        loss = module(*inputs).mean() / job.accumulation
                    loss.backward()
                total += loss.detach().cpu()
            norms.append(clip_gradients(module.parameters(), 0.5).item())
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * min(1, (step + 1) / 5)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(step + 1)
            losses.append(mean_over_ranks(total, ranks).item())
            ended = stop.agreed(ranks)
            if job.folder and (ended or (job.save_every and (step + 1) % job.save_every == 0)):
                checkpoint.save(Path(job.folder), step + 1, module, optimizer, ema, {"step": step + 1}, ranks, job.keep)
            if ended:
                stopped = step + 1
                break
    if job.bad_batches:
        judge = Health(HealthRule(), Path(job.bad_batches), ranks)
        loss_seen = math.nan if ranks.rank == ranks.world - 1 else 1.0
        assert not judge.check(job.steps, loss_seen, 1.0, [f"clip {ranks.rank}"], [loss_seen])
    inner: Any = unwrapped(module)
    statistics = [str(inner.network.latent_std.dtype), inner.network.latent_std.flatten()[0].item()]
    return {"losses": losses, "norms": norms, "sums": sums(module, ema), "stopped": stopped, "statistics": statistics}


def sums(module: nn.Module, ema: PowerEMA) -> dict[str, float]:
    """A number for all weights and one for each average, the same only when every bit is the same (nearly surely)."""
    inner: Any = unwrapped(module)
    found = {"weights": dict(inner.network.named_parameters()), **{str(w): ema.tensors(w) for w in ema.sigma_rels}}
    return {key: _sum(tensors) for key, tensors in found.items()}


def _sum(tensors: dict[str, Tensor]) -> float:
    total = 0.0
    for number, tensor in enumerate(tensors.values()):
        value = whole(tensor.detach()).double().cpu().flatten()
        total += float(value @ torch.linspace(1, 2, len(value), dtype=torch.float64)) * (1 + number / 100)
    return total


def main(path: Path) -> None:
    jobs = [Job(**values) for values in json.loads(path.read_text())["jobs"]]
    with started(jobs[0].device) as ranks:
        results = [run(job, ranks) for job in jobs]
        if ranks.first:
            Path(f"{path}.out").write_text(json.dumps({"results": results}))


if __name__ == "__main__":
    from mmaudio_core.errors import MMAudioError

    try:
        main(Path(sys.argv[1]))
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads of gloo now and then outlive the interpreter and crash in its last moments; all work is done and written.
        os._exit(0)
    except MMAudioError as error:
        print(f"worker: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
