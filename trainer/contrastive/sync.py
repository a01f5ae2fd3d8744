"""Synchformer's visual tower as a task: segments against their sound, as its authors' first stage (arXiv 2401.16423), the 80 ms
of a segment against theirs, and a rough log-mel of each 80 ms foretold from what is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.features.synchformer import SynchformerVisual
from mmaudio_core.spec.model import SynchformerSpec
from mmaudio_core.spec.timing import SYNC_FPS, SYNC_SEGMENT_FRAMES
from mmaudio_core.weights.build import build_module

from ..data.kept import Kept
from .audio import AudioTower, Outline
from .augment import augment
from .config import SyncConfig, sync_spec
from .losses import both, contrast, pairs, similarities
from .retrieval import offset_s, top1
from .rows import Rows
from .step import Place, load_base
from .sync_data import SegmentReader, Segments, bytes_of

CHUNK = 16
"""Segments that are measured at once."""
POSITION_STD = 0.02
MOTION_GAIN, STILL_GAIN, CONSTANT_STD = 16.0, 0.15, 0.5


class Batch(NamedTuple):
    """B clips of G segments. frames: (B, G, 16, 3, H, W), normalised. samples: (B G, N). starts, clips: int64 (B, G).
    quiet: bool (B, G, 8)."""

    frames: Tensor
    samples: Tensor
    starts: Tensor
    clips: Tensor
    quiet: Tensor


class Head(nn.Module):
    """Features (..., D) less what they have in common -> (..., out), the space of the contrast or what is foretold.

    Without that, features of an untrained tower differ so little beside what they share that all cosines are one, and
    training ends where it begins: in one feature for everything.
    """

    def __init__(self, width: int, out: int, bias: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x.flatten(0, -2))).unflatten(0, x.shape[:-1])


class AudioSide(nn.Module):
    """The audio tower, temperatures, and the ways of both sides' tokens and segments to common spaces of width D."""

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.tower = AudioTower(width)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.tokens_log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.seen_segment, self.heard_segment = Head(width, width), Head(width, width)
        self.seen_token, self.heard_token = Head(width, width), Head(width, width)
        self.outline = Outline()
        self.foretold = Head(width, self.outline.values, bias=True)

    def segments(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Tokens (N, 8, D) of N segments, seen and heard -> logits (N, N)."""
        return similarities(self.seen_segment(seen.mean(1)), self.heard_segment(heard.mean(1)), self.log_scale)

    def tokens(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Tokens (B, N, D) of B clips, seen and heard -> logits (B, N, N).

        What all tokens of a clip share is taken off: it says nothing of time, and is nearly all that an untrained tower says.
        """
        seen, heard = (x - x.mean(1, keepdim=True) for x in (seen, heard))
        return similarities(self.seen_token(seen), self.heard_token(heard), self.tokens_log_scale)


class SyncTask:
    """See ``Task``."""

    name = "sync"

    def __init__(self, config: SyncConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            if config.model.base:
                module, spec = load_base(config.model.base, "synchformer")
            else:
                spec = sync_spec(config.model)
                module = build_module(spec)
                _begin(cast("SynchformerVisual", module))
            self.spec = cast("SynchformerSpec", spec)
            self.others = AudioSide(self.spec.width, config.loss.temperature).to(device)
        self.model = cast("SynchformerVisual", module.train().to(device))

    def rows(self, split: str, held_out: bool = False) -> Rows[Segments]:
        data = self.config.data
        segments = 0 if held_out else data.segments
        cache: Kept[Segments] = Kept(data.cache_mb << 20, bytes_of)
        quiet_db, kept = self.config.loss.quiet_db, data.kept_segments
        reader = SegmentReader(self.spec.image_size, data.duration_s, segments, quiet_db, kept, self.config.train.seed, cache)
        return Rows(Path(data.manifest).expanduser(), split, reader)

    def loss(self, items: Sequence[Segments], place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self._batch(items)
        frames = augment(batch.frames, self.config.augment, place.generators(len(items)))
        seen, heard = self._features(frames.flatten(0, 1), batch.samples)
        weights, parts = self.config.loss, {}
        if weights.segments:
            together, ignored = segment_pairs(batch)
            parts["loss/segments"] = contrast(self.others.segments(seen, heard), together, ignored)
        if weights.tokens:
            count = len(items)
            logits = self.others.tokens(*(x.unflatten(0, (count, -1)).flatten(1, 2) for x in (seen, heard)))
            parts["loss/tokens"] = contrast(logits, *token_pairs(batch))
        if weights.outline:
            # Squared, so that the few loud instants, which are what matters, count more than many quiet ones.
            parts["loss/outline"] = F.mse_loss(self.others.foretold(seen), self.others.outline(batch.samples))
        total = torch.zeros((), device=self.device)
        for name, value in parts.items():
            total = total + getattr(weights, name.removeprefix("loss/")) * value
        return total, parts

    @torch.no_grad()
    def measure(self, items: Sequence[Segments]) -> dict[str, float]:
        """How often a segment finds its sound among those of its clip, and a token among the 8 of its segment, where something
        is heard; how far beside it a token looks; and the share of the outlines' variance that is foretold."""
        self.others.eval()
        found: dict[str, list[float]] = {f"held_out/{name}": [] for name in ("segment", "token", "offset_s")}
        missed, there_is = [], []
        chances = []
        step_s = SYNC_SEGMENT_FRAMES / SYNC_FPS / self.spec.temporal_tokens
        for item in items:
            batch = self._batch([item])
            parts = zip(batch.frames[0].split(CHUNK), batch.samples.split(CHUNK), strict=True)
            features = [self._features(frames, samples) for frames, samples in parts]
            seen, heard = (torch.cat(side) for side in zip(*features, strict=True))
            there = ~batch.quiet[0]
            if there.any(1).sum() < 2:
                continue
            same = torch.eye(len(seen), dtype=torch.bool, device=self.device)
            found["held_out/segment"].append(top1(self.others.segments(seen, heard), same, there.any(1)))
            chances.append(1 / len(seen))
            whole = self.others.tokens(seen.flatten(0, 1)[None], heard.flatten(0, 1)[None])[0]
            tokens = torch.stack(
                [whole.unflatten(0, (len(seen), -1)).unflatten(2, (len(seen), -1))[i, :, i] for i in range(len(seen))]
            )
            own = torch.eye(tokens.shape[-1], dtype=torch.bool, device=self.device).expand_as(tokens)
            found["held_out/token"].append(top1(tokens, own, there))
            found["held_out/offset_s"].append(offset_s(tokens, step_s, there))
            outline = self.others.outline(batch.samples)
            missed.append((self.others.foretold(seen) - outline).square().mean())
            there_is.append(outline)
        self.others.train()
        if not chances:
            return {}
        means = {name: sum(values) / len(values) for name, values in found.items()}
        chance = {
            "held_out/segment_chance": sum(chances) / len(chances),
            "held_out/token_chance": 1 / self.spec.temporal_tokens,
            "held_out/outline": 1 - float(torch.stack(missed).mean() / torch.cat(there_is).var(unbiased=False)),
        }
        return means | chance

    def _batch(self, items: Sequence[Segments]) -> Batch:
        frames = torch.stack([item.frames for item in items]).to(self.device)
        starts = torch.stack([item.starts for item in items])
        clips = torch.tensor([item.clip for item in items])[:, None].expand_as(starts)
        return Batch(
            (frames.float() / 255 - 0.5) / 0.5,
            torch.cat([item.samples for item in items]).to(self.device),
            starts.to(self.device),
            clips.to(self.device),
            torch.stack([item.quiet for item in items]).to(self.device),
        )

    def _features(self, frames: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, 16, 3, H, W) and samples (N, ...) -> tokens seen and heard, each (N, 8, D)."""
        return self.model(frames.transpose(1, 2)), self.others.tower(samples)


def segment_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """bool (B G, B G) twice: which segments are the same time of the same clip, and which count neither way, because they
    overlap or nothing is heard in both."""
    starts, clips, quiet = batch.starts.flatten(), batch.clips.flatten(), batch.quiet.flatten(0, 1).all(-1)
    apart = (starts[:, None] - starts).abs()
    same_clip = pairs(clips)
    return same_clip & (apart == 0), both(quiet) | (same_clip & (apart < SYNC_SEGMENT_FRAMES))


def token_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """bool (B, 8 G, 8 G) twice: which tokens of a clip are the same time, those of overlapping segments too, and which count
    neither way, because nothing is heard in both."""
    tokens = batch.quiet.shape[-1]
    frames = torch.arange(0, SYNC_SEGMENT_FRAMES, SYNC_SEGMENT_FRAMES // tokens, device=batch.starts.device)
    times = (batch.starts[..., None] + frames).flatten(1)
    return pairs(times), both(batch.quiet.flatten(1))


@torch.no_grad()
def _begin(module: SynchformerVisual) -> None:
    """Positions and class tokens begin small and different from each other; the core builds them as zeros.

    Half of the tubelets' filters begin as differences of their two halves in time, and the other half small beside a constant:
    what moves is what sounds, and is little beside what stands still, which norms would otherwise make as large as it.
    """
    for name, parameter in module.named_parameters():
        if name.endswith(("_embed", "cls_token")):
            nn.init.trunc_normal_(parameter, std=POSITION_STD)
    weight = module.patch_embed_3d.proj.weight  # D, 3, frames, patch, patch
    moving, still, half = weight[: len(weight) // 2], weight[len(weight) // 2 :], weight.shape[2] // 2
    moving[:, :, -half:] = -moving[:, :, :half]
    moving *= MOTION_GAIN
    still *= STILL_GAIN
    bias = module.patch_embed_3d.proj.bias
    assert bias is not None
    nn.init.normal_(bias, std=CONSTANT_STD)
