"""The parts of a variant with made-up weights, or the embedded model's, and inputs of a duration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..features.segments import frames_to_encode
from ..pipeline.files import EMBEDDED, EMBEDDED_FILE
from ..spec.model import VAES, VARIANTS, VOCODERS, CLIPSpec, FlowSpec, PartSpec, SynchformerSpec
from ..spec.timing import SequenceLengths, sequence_lengths, sync_frames
from ..weights.build import build_module, load_part
from ..weights.parts import open_raw_part

KINDS = ("clip", "synchformer", "flow", "vae", "vocoder")
SEED = 0


def variant_names() -> tuple[str, ...]:
    """What can be measured."""
    return (EMBEDDED, *VARIANTS)


def variant_specs(variant: str) -> dict[str, PartSpec]:
    """Kind -> spec of a published variant, or of the embedded model.

    Raises:
        InputError: for another name.
    """
    if variant == EMBEDDED:
        return {kind: open_raw_part(EMBEDDED_FILE, kind).detected.spec for kind in KINDS}
    if variant not in VARIANTS:
        raise InputError(f"There is no variant {variant!r}; known are {', '.join(variant_names())}.")
    flow = VARIANTS[variant]
    rate = flow.audio.name
    return {"clip": CLIPSpec(), "synchformer": SynchformerSpec(), "flow": flow, "vae": VAES[rate], "vocoder": VOCODERS[rate]}


def make_part(variant: str, kind: str, device: torch.device, dtype: torch.dtype, **towers: Any) -> Any:
    """A part in eval mode, the same weights for every dtype up to rounding; CLIP's ``image`` and ``text`` choose towers."""
    if variant == EMBEDDED:
        module, _ = load_part(EMBEDDED_FILE, kind, dtype=dtype, device=device, **towers)
        return module
    with torch.device("meta"):
        module = build_module(variant_specs(variant)[kind], **towers)
    module = module.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    fill_(module)
    if kind == "vae":
        whole: Any = module
        whole.fold_weights_()
    return module


@torch.no_grad()
def fill_(module: nn.Module) -> None:
    """Uniform numbers of the usual size for a fan-in, ones for scales, the same on every device of a kind."""
    filters: dict[str, Tensor] = {}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        generator = torch.Generator(value.device).manual_seed(SEED + len(filters))
        filters[name] = value
        if not value.is_floating_point():
            continue
        wide = torch.empty(value.shape, device=value.device)
        if value.ndim > 1:
            bound = (3 / max(1, value[0].numel())) ** 0.5
            wide.uniform_(-bound, bound, generator=generator)
        elif name.endswith(("bias", "alpha", "beta", "gain", "mean")):
            wide.uniform_(-0.1, 0.1, generator=generator)
        else:
            wide.uniform_(0.9, 1.1, generator=generator)
        value.copy_(wide)
    for part in module.modules():
        refill = getattr(part, "filter", None)
        if isinstance(refill, Tensor):
            from ..vocoder.filters import kaiser_sinc

            refill.copy_(kaiser_sinc())


@dataclass(frozen=True)
class Inputs:
    """clip: uint8 (V, 3, size, size). sync: uint8 (frames, 3, size, size). tokens: int64 (1, 77), the same for every dtype."""

    lengths: SequenceLengths
    clip: Tensor
    sync: Tensor
    tokens: Tensor


def make_inputs(variant: str, duration_s: float, device: torch.device) -> Inputs:
    """Noise for pictures and numbers for words, on the CPU as a video's frames are."""
    specs: dict[str, Any] = variant_specs(variant)
    flow: FlowSpec = specs["flow"]
    lengths = sequence_lengths(duration_s, flow.audio, flow.sync_timing)
    generator = torch.Generator().manual_seed(SEED)

    def pixels(frames: int, size: int) -> Tensor:
        return torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8, generator=generator)

    clip: CLIPSpec = specs["clip"]
    tokens = torch.randint(1, clip.vocab_size, (1, clip.context_length), generator=generator)
    return Inputs(
        lengths,
        pixels(lengths.clip, clip.image_size),
        frames_to_encode(pixels(sync_frames(duration_s), specs["synchformer"].image_size), duration_s),
        tokens.to(device),
    )
