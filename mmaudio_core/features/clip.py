"""CLIP image and text features through open_clip's model classes and tokenizer (spec section 4).

open_clip is imported only when an encoder is built or a text is tokenised; its weights come through our own loader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DependencyError, InputError
from ..spec.model import CLIPSpec

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
FRAMES_PER_CHUNK = 8


def _open_clip() -> Any:
    try:
        import open_clip
        import open_clip.model
        import open_clip.tokenizer
    except Exception as error:  # a broken torchvision or timm below it raises more than ImportError
        raise DependencyError(
            f"CLIP features need open_clip_torch, which cannot be imported ({error}); install open_clip_torch and a "
            "torchvision that fits your torch."
        ) from error
    return open_clip


def tokenize(texts: Sequence[str], context_length: int = 77) -> Tensor:
    """CLIP byte-pair tokens int64 (B, context_length), zero-padded; longer texts are cut with their end token kept."""
    return _open_clip().tokenizer.SimpleTokenizer(context_length=context_length)(list(texts))


def _open_clip_model(spec: CLIPSpec) -> Any:
    vision = {
        "image_size": spec.image_size,
        "layers": spec.vision_layers,
        "width": spec.vision_width,
        "head_width": spec.vision_head_width,
        "patch_size": spec.patch,
    }
    text = {
        "context_length": spec.context_length,
        "vocab_size": spec.vocab_size,
        "width": spec.text_width,
        "heads": spec.text_heads,
        "layers": spec.text_layers,
    }
    return _open_clip().model.CLIP(spec.embed_dim, vision_cfg=vision, text_cfg=text, quick_gelu=spec.quick_gelu)


class CLIPEncoder(nn.Module):
    """One or both towers of an open_clip model, parameters under its names.

    Text-to-audio needs only ``text=True``: the visual tower is then neither built nor loaded.

    Raises:
        DependencyError: when open_clip cannot be imported.
    """

    visual: Any
    transformer: nn.Module
    token_embedding: nn.Embedding
    positional_embedding: Tensor
    ln_final: nn.LayerNorm

    def __init__(self, spec: CLIPSpec, image: bool = True, text: bool = True) -> None:
        super().__init__()
        self.spec = spec
        model = _open_clip_model(spec)
        if image:
            self.visual = model.visual
        if text:
            self.transformer = model.transformer
            self.token_embedding = model.token_embedding
            self.positional_embedding = model.positional_embedding
            self.ln_final = model.ln_final
            self.text_projection = model.text_projection

    @torch.no_grad()
    def encode_image(
        self,
        frames: Tensor,
        frames_per_chunk: int = FRAMES_PER_CHUNK,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Frames (V, 3, H, W) -> L2-normalised (1, V, embed_dim) float; one vector per frame.

        Frames are uint8 pixels, or floats already normalised by CLIP's mean and std. ``progress`` gets (frames done, in all).

        Raises:
            InputError: when the frame size is not the model's.
        """
        size = self.spec.image_size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, size, size):
            raise InputError(f"Frames of shape {tuple(frames.shape)} were given to CLIP; it needs (frames, 3, {size}, {size}).")
        features = []
        for first in range(0, frames.shape[0], frames_per_chunk):
            chunk = self._pixels(frames[first : first + frames_per_chunk])
            features.append(F.normalize(self.visual(chunk).float(), dim=-1))
            if progress:
                progress(first + chunk.shape[0], frames.shape[0])
        return torch.cat(features)[None]

    def _pixels(self, frames: Tensor) -> Tensor:
        weight = self.visual.conv1.weight
        frames = frames.to(weight.device)
        if frames.dtype == torch.uint8:
            mean, std = (torch.tensor(v, device=weight.device)[:, None, None] for v in (MEAN, STD))
            frames = (frames.float() / 255 - mean) / std
        return frames.to(weight.dtype)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> last hidden states after the final LayerNorm, each L2-normalised: (B, T, text width) float."""
        return self.encode_tokens(tokenize(texts, self.spec.context_length))

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (B, T) -> L2-normalised last hidden states (B, T, text width) float."""
        weight = self.positional_embedding
        length = tokens.shape[1]
        x = self.token_embedding(tokens.to(weight.device)) + weight[:length]
        causal = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        x = self.ln_final(self.transformer(x, attn_mask=causal))
        return F.normalize(x.float(), dim=-1)
