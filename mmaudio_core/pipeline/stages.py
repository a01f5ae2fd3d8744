"""What each stage of a run needs: the weights of its part, and its work by how much it takes on at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch

from ..features.clip import FRAMES_PER_CHUNK as CLIP_FRAMES
from ..features.synchformer import SEGMENTS_PER_CHUNK
from ..layers.float8 import keeps_float8
from ..spec.audio import LATENT_STRIDE
from ..spec.model import CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec, VocoderSpec
from ..spec.timing import SYNC_TOKENS_PER_SEGMENT, segments_to_encode, sequence_lengths
from ..vocoder.chunked import FRAMES_PER_CHUNK as MEL_FRAMES
from ..weights.build import build_module
from ..weights.fp8 import store_in_float8_
from . import memory
from .precision import Precision

LEAST_MEL_FRAMES = 32
"""Smaller pieces of the vocoder are mostly overlap."""
BRANCHES = 2
"""Guidance evaluates every sample under its conditions and under empty ones, together."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Run:
    """What is asked for, as far as it costs memory.

    batch: samples that go through the flow network together. texts: prompts to encode. video: CLIP and Synchformer see frames;
    image: CLIP sees one. fused_attention: the flow network's attention makes no score matrix; else the plan reckons with one,
    which grows with the square of the duration.
    """

    duration_s: float
    batch: int = 1
    texts: int = 1
    video: bool = True
    image: bool = False
    fused_attention: bool = False


@dataclass(frozen=True)
class Need:
    """One stage: ``part`` is loaded for it, and ``options`` are (how much at once, work bytes), the usual one first."""

    name: str
    part: str
    weight_bytes: int
    options: tuple[tuple[int, int], ...]

    def within(self, room_bytes: float) -> tuple[int, int]:
        """The largest option whose work fits beside the weights, else the smallest."""
        return next((o for o in self.options if self.weight_bytes + o[1] <= room_bytes), self.options[-1])

    @property
    def least_bytes(self) -> int:
        return self.weight_bytes + self.options[-1][1]


@cache
def _sizes(spec: PartSpec, dtype: torch.dtype, storage: str | None, image: bool, text: bool) -> tuple[int, int]:
    """Bytes of a part's weights as they are loaded, and the most that widening one of them takes for a moment."""
    with torch.device("meta"):
        module = build_module(spec, image=image, text=text, encoder=False).to(dtype)
    wide = 0
    if storage is not None:
        store_in_float8_(module, spec.kind, dtype)
        if keeps_float8(module):
            largest = max(t.numel() for name, t in module.state_dict().items() if name.endswith("_fp8"))
            # Loading narrows a weight that came in float32, through a second one.
            wide = largest * 2 * FLOAT32_BYTES
    return sum(t.numel() * t.element_size() for t in module.state_dict().values()), wide


def fuses_attention(device: torch.device) -> bool:
    """Whether torch's attention runs there without the whole score matrix, for heads of 64 channels."""
    if device.type == "cuda":
        return torch.backends.cuda.flash_sdp_enabled() or torch.backends.cuda.mem_efficient_sdp_enabled()
    return device.type == "cpu" and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def part_bytes(spec: PartSpec, precision: Precision, image: bool = True, text: bool = True) -> int:
    """Bytes of a part as the pipeline loads it: CLIP's wanted towers, a VAE without its encoder."""
    return _sizes(spec, precision.of(spec.kind), precision.storage_of(spec.kind), image, text)[0]


def needs_of(specs: Mapping[str, PartSpec], precision: Precision, run: Run) -> list[Need]:
    """The stages of ``run`` in order; ``specs`` by kind, of which only those that the run uses are looked at."""
    flow, vae, vocoder = cast(FlowSpec, specs["flow"]), cast(VAESpec, specs["vae"]), cast(VocoderSpec, specs["vocoder"])
    lengths = sequence_lengths(run.duration_s, flow.audio)

    def need(name: str, part: str, kind: str, sizes: list[int], work: Callable[[int], int], **towers: bool) -> Need:
        towers = {"image": True, "text": True} | towers
        weights, wide = _sizes(specs[kind], precision.of(kind), precision.storage_of(kind), **towers)
        return Need(name, part, weights, tuple((size, work(size) + wide) for size in sizes))

    def clip_work(frames: int) -> int:
        return memory.clip_image_bytes(clip, frames, precision.of("clip")) + 2 * pictures * clip.embed_dim * FLOAT32_BYTES

    def sync_work(segments: int) -> int:
        features = 2 * seen * SYNC_TOKENS_PER_SEGMENT * sync.width * FLOAT32_BYTES  # the pieces and the whole, as for CLIP
        return memory.synchformer_bytes(sync, segments, precision.of("synchformer")) + features

    needs = []
    if run.video or run.image or run.texts:
        clip, pictures = cast(CLIPSpec, specs["clip"]), lengths.clip if run.video else 1
    if run.video or run.image:
        needs.append(need("CLIP image", "clip image", "clip", _halves(min(CLIP_FRAMES, pictures)), clip_work, text=False))
    if run.video:
        sync, seen = cast(SynchformerSpec, specs["synchformer"]), segments_to_encode(run.duration_s)
        sizes = _halves(min(SEGMENTS_PER_CHUNK, seen))
        needs.append(need("Synchformer", "synchformer", "synchformer", sizes, sync_work))
    if run.texts:
        words = memory.clip_text_bytes(clip, run.texts, precision.of("clip"))
        needs.append(need("CLIP text", "clip text", "clip", [run.texts], lambda _: words, image=False))

    tokens, frames = lengths.latent, LATENT_STRIDE * lengths.latent
    pieces = _halves(min(MEL_FRAMES, frames), min(LEAST_MEL_FRAMES, frames))
    return [
        *needs,
        need(
            "sampling",
            "flow",
            "flow",
            _halves(run.batch),
            lambda n: memory.flow_bytes(flow, BRANCHES * n, tokens, precision.of("flow"), run.fused_attention),
        ),
        need(
            "VAE decode",
            "vae",
            "vae",
            [1],
            lambda _: memory.vae_decode_bytes(vae, tokens, precision.of("vae"), run.fused_attention),
        ),
        need("vocoder", "vocoder", "vocoder", pieces, lambda n: memory.vocoder_bytes(vocoder, frames, n)),
    ]


def _halves(most: int, least: int = 1) -> list[int]:
    """``most`` and its halves down to ``least``."""
    sizes = [most]
    while sizes[-1] > least:
        sizes.append(max(least, sizes[-1] // 2))
    return sizes
