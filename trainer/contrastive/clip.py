"""CLIP as a task: frames against captions (arXiv 2103.00020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.features.clip import CLIPEncoder, tokenize
from mmaudio_core.features.fast_clip import MEAN, STD
from mmaudio_core.spec.model import CLIPSpec
from mmaudio_core.weights.build import build_module

from .augment import augment
from .clip_data import Captioned, FrameReader
from .config import ClipConfig, clip_spec
from .losses import contrast, similarities
from .retrieval import top1
from .rows import Rows
from .step import Place, load_base

CAPTIONS = 32
"""Clips among which a caption is looked for."""


class Heads(nn.Module):
    """Temperatures, and the way of a text's mean token feature to the frames' space."""

    def __init__(self, spec: CLIPSpec, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.tokens_log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.tokens = nn.Linear(spec.text_width, spec.embed_dim)


class ClipTask:
    """See ``Task``."""

    name = "clip"

    def __init__(self, config: ClipConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            if config.model.base:
                module, spec = load_base(config.model.base, "clip")
            else:
                spec = clip_spec(config.model)
                module = build_module(spec)
            self.spec = cast("CLIPSpec", spec)
            self.others = Heads(self.spec, config.loss.temperature).to(device)
        self.model = cast("CLIPEncoder", module.train().to(device))
        self._mean, self._std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))

    def rows(self, split: str, held_out: bool = False) -> Rows[Captioned]:
        data, seed = self.config.data, self.config.train.seed
        frames = data.kept_frames if held_out else data.frames
        cache_bytes = 0 if held_out else data.cache_mb << 20
        reader = FrameReader(self.spec.image_size, data.duration_s, data.kept_frames, frames, seed, cache_bytes)
        return Rows(Path(data.manifest).expanduser(), split, reader)

    def loss(self, items: Sequence[Captioned], place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        frames = self._pixels(items)
        seen = self._seen(augment(frames, self.config.augment, place.generators(len(items))))
        texts, tokens = self._read([item.caption for item in items])
        together = _equal(items).to(self.device)
        parts = {"loss/captions": contrast(similarities(seen, texts, self.others.log_scale), together)}
        loss = parts["loss/captions"]
        if self.config.loss.tokens:
            of_tokens = similarities(seen, self.others.tokens(tokens), self.others.tokens_log_scale)
            parts["loss/tokens"] = contrast(of_tokens, together)
            loss = loss + self.config.loss.tokens * parts["loss/tokens"]
        return loss, parts

    @torch.no_grad()
    def measure(self, items: Sequence[Captioned]) -> dict[str, float]:
        """Of groups of 32 clips, or of all where there are fewer: how often a clip finds its caption, and the reverse."""
        size = min(CAPTIONS, len(items))
        found: dict[str, list[float]] = {"held_out/caption": [], "held_out/picture": [], "held_out/caption_by_tokens": []}
        for first in range(0, len(items) - size + 1, size):
            group = items[first : first + size]
            seen = self._seen(self._pixels(group))
            texts, tokens = self._read([item.caption for item in group])
            together = _equal(group).to(self.device)
            scores = similarities(seen, texts, self.others.log_scale)
            found["held_out/caption"].append(top1(scores, together))
            found["held_out/picture"].append(top1(scores.T, together))
            by_tokens = similarities(seen, self.others.tokens(tokens), self.others.tokens_log_scale)
            found["held_out/caption_by_tokens"].append(top1(by_tokens, together))
        return {name: sum(values) / len(values) for name, values in found.items()} | {"held_out/chance": 1 / size}

    def _pixels(self, items: Sequence[Captioned]) -> Tensor:
        """(B, V, 3, H, W), normalised."""
        frames = torch.stack([item.frames for item in items]).to(self.device)
        return (frames.float() / 255 - self._mean) / self._std

    def _seen(self, frames: Tensor) -> Tensor:
        """Frames (B, V, 3, H, W) -> the mean of their normalised features (B, D)."""
        features: Tensor = self.model.visual(frames.flatten(0, 1))
        return F.normalize(features, dim=-1).unflatten(0, frames.shape[:2]).mean(1)

    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts -> features of their end tokens (B, D), and the mean of the token features that the flow network is given
        (B, text width), over the text's own tokens."""
        model = self.model
        tokens = tokenize(texts, self.spec.context_length)
        ends = tokens.argmax(-1)  # the end token has the highest number
        length = int(ends.max()) + 1  # nothing looks forward, so that what is behind all texts changes nothing
        tokens, ends = tokens[:, :length].to(self.device), ends.to(self.device)
        x = model.token_embedding(tokens) + model.positional_embedding[:length]
        causal = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        x = model.ln_final(model.transformer(x, attn_mask=causal))
        last = x[torch.arange(len(x), device=x.device), ends] @ model.text_projection
        own = (torch.arange(length, device=x.device) <= ends[:, None]).to(x.dtype)
        mean = (F.normalize(x, dim=-1) * own[..., None]).sum(1) / own.sum(1, keepdim=True)
        return last, mean


def _equal(items: Sequence[Captioned]) -> Tensor:
    """bool (B, B): captions of the same words."""
    numbers: dict[str, int] = {}
    said = torch.tensor([numbers.setdefault(" ".join(item.caption.lower().split()), len(numbers)) for item in items])
    return said[:, None] == said
