"""CLIP image and text features through open_clip's model classes and tokenizer (spec section 4).

open_clip is imported only when an encoder is built or a text is tokenised; its weights come through our own loader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import sdpa
from ..attention.protocol import Attention
from ..errors import DependencyError, InputError
from ..kernels.graphs import Graphed
from ..kernels.keep import Keep, Keeping, stamp, weights_of
from ..kernels.sets import Kernels, torch_kernels
from ..spec.model import CLIPSpec
from .fast_clip import MEAN, STD, FastCLIPImage
from .repeats import TextCache, distinct_frames

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
    tokens: Tensor = _tokenizer(context_length)(list(texts))
    return tokens


@lru_cache(maxsize=4)
def _tokenizer(context_length: int) -> Any:
    """Making one reads the whole vocabulary, for a tenth of a second."""
    return _open_clip().tokenizer.SimpleTokenizer(context_length=context_length)


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


class CLIPEncoder(Keeping):
    """One or both towers of an open_clip model, parameters under its names.

    Text-to-audio needs only ``text=True``: the visual tower is then neither built nor loaded. ``kernels`` and ``attention``
    are what the fast path of the visual tower computes with, and ``graphs`` whether both towers are replayed as CUDA graphs;
    set them before it is used.

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
        self.kernels: Kernels = torch_kernels()
        self.attention: Attention = sdpa.attend
        self.graphs = False
        self._fast, self._texts, self._graphed, self._graphed_text = Keep(), TextCache(), Keep(), Keep()
        model = _open_clip_model(spec)
        if image:
            self.visual = model.visual
        if text:
            self.transformer = model.transformer
            self.token_embedding = model.token_embedding
            self.positional_embedding = model.positional_embedding
            self.ln_final = model.ln_final
            self.text_projection = model.text_projection

    def fast_image(self) -> FastCLIPImage:
        """The fast path of the visual tower, made anew when weights, ``kernels`` or ``attention`` changed."""
        key = (stamp(self.visual), self.kernels, self.attention)
        return self._fast.get(key, lambda: FastCLIPImage(self.visual, self.spec, self.kernels, self.attention))

    def _image_tower(self) -> Callable[[Tensor], Tensor]:
        fast = self.fast_image()
        return self._graphed.get(fast, lambda: Graphed(fast)) if self.graphs else fast

    @torch.no_grad()
    def encode_image(
        self,
        frames: Tensor,
        frames_per_chunk: int = FRAMES_PER_CHUNK,
        progress: Callable[[int, int], None] | None = None,
        plain: bool = False,
    ) -> Tensor:
        """Frames (V, 3, H, W) -> L2-normalised (1, V, embed_dim) float; one vector per frame.

        Frames are uint8 pixels, or floats already normalised by CLIP's mean and std; equal neighbours are encoded once.
        ``progress`` gets (frames done, in all). ``plain``: through open_clip's module itself, every frame, as a reference.

        Raises:
            InputError: when the frame size is not the model's.
        """
        size = self.spec.image_size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, size, size):
            raise InputError(f"Frames of shape {tuple(frames.shape)} were given to CLIP; it needs (frames, 3, {size}, {size}).")
        count = frames.shape[0]
        first = list(range(count)) if plain else distinct_frames(frames)
        tower: Callable[[Tensor], Tensor] = self.visual if plain else self._image_tower()
        features = []
        for start in range(0, len(first), frames_per_chunk):
            end = start + frames_per_chunk
            wanted = first[start:end]
            chunk = frames[wanted[0] : wanted[-1] + 1] if wanted[-1] - wanted[0] < len(wanted) else frames[wanted]
            chunk = self._pixels(chunk) if plain else chunk.to(self.visual.conv1.weight.device)
            features.append(F.normalize(tower(chunk).float(), dim=-1))
            if progress:
                progress(first[end] if end < len(first) else count, count)
        out = torch.cat(features)
        if len(first) < count:
            shown = [following - own for own, following in zip(first, [*first[1:], count], strict=True)]
            out = out.repeat_interleave(torch.tensor(shown, device=out.device), dim=0, output_size=count)
        return out[None]

    def _pixels(self, frames: Tensor) -> Tensor:
        weight = self.visual.conv1.weight
        frames = frames.to(weight.device)
        if frames.dtype == torch.uint8:
            mean, std = (torch.tensor(v, device=weight.device)[:, None, None] for v in (MEAN, STD))
            frames = (frames.float() / 255 - mean) / std
        return frames.to(weight.dtype)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], plain: bool = False) -> Tensor:
        """Texts -> last hidden states after the final LayerNorm, each L2-normalised: (B, T, text width) float.

        Features of recent texts are kept on the CPU. ``plain``: all in one batch, nothing kept.
        """
        tokens = tokenize(texts, self.spec.context_length)
        if plain:
            return self.encode_tokens(tokens)

        # One by one: in a batch the last bits would depend on what else is in it, and so on what had been asked for before.
        def alone(row: tuple[int, ...]) -> Tensor:
            return encode(torch.tensor([row], device=self.positional_embedding.device))[0]

        encode: Callable[[Tensor], Tensor] = self.encode_tokens
        if self.graphs:
            places = tuple((t.data_ptr(), t.device) for t in self._text_weights())
            encode = self._graphed_text.get(places, lambda: Graphed(self.encode_tokens))
        features = self._texts.get(self._text_weights(), _rows(tokens), alone)
        return features.to(self.positional_embedding.device)

    def remembers(self, texts: Sequence[str]) -> bool:
        """Whether ``encode_text`` needs the weights no more for ``texts``."""
        return self._texts.holds(self._text_weights(), _rows(tokenize(texts, self.spec.context_length)))

    def _text_weights(self) -> list[Tensor]:
        towers = (self.transformer, self.token_embedding, self.ln_final)
        return [self.positional_embedding, *(t for tower in towers for t in weights_of(tower))]

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (B, T) -> L2-normalised last hidden states (B, T, text width) float."""
        weight = self.positional_embedding
        length = tokens.shape[1]
        x = self.token_embedding(tokens.to(weight.device)) + weight[:length]
        causal = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        x = self.ln_final(self.transformer(x, attn_mask=causal))
        return F.normalize(x.float(), dim=-1)


def _rows(tokens: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in tokens.tolist()]
