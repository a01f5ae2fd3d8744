"""The whole Synchformer (arXiv 2401.16423): audio tower (AST, arXiv 2104.01778), offset head, and the DeSync score's input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DependencyError, InputError
from ..spec.model import SynchformerSpec
from .synchformer import SynchformerVisual
from .synchformer_blocks import ClassTokenPool, merge_heads, split_heads

WIDTH, HEADS, INNER = 768, 12, 3072
AST_EPS = 1e-12
FREQUENCY_PATCHES, TIME_PATCHES, PATCH, PATCH_STRIDE = 12, 6, 16, 10
HEAD_BLOCKS, HEAD_HEADS, HEAD_POSITIONS = 3, 8, 198
OFFSET_CLASSES, MAX_OFFSET_S = 21, 2.0

SAMPLE_RATE_HZ, SEGMENT_SAMPLES, SEGMENT_STRIDE_SAMPLES = 16_000, 10_240, 5_120
MEL_FRAMES, MEL_MEAN, MEL_STD = 66, -4.2677393, 4.5689974


class ASTLayer(nn.Module):
    """Pre-norm transformer layer with the names of the published Audio Spectrogram Transformer."""

    def __init__(self) -> None:
        super().__init__()

        def holder(**children: nn.Module) -> Any:
            return nn.ModuleDict(children)

        self.attention: Any = holder(
            attention=holder(query=nn.Linear(WIDTH, WIDTH), key=nn.Linear(WIDTH, WIDTH), value=nn.Linear(WIDTH, WIDTH)),
            output=holder(dense=nn.Linear(WIDTH, WIDTH)),
        )
        self.intermediate: Any = holder(dense=nn.Linear(WIDTH, INNER))
        self.output: Any = holder(dense=nn.Linear(INNER, WIDTH))
        self.layernorm_before = nn.LayerNorm(WIDTH, eps=AST_EPS)
        self.layernorm_after = nn.LayerNorm(WIDTH, eps=AST_EPS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layernorm_before(x)
        q, k, v = (split_heads(self.attention["attention"][name](h), HEADS) for name in ("query", "key", "value"))
        x = x + self.attention["output"]["dense"](merge_heads(F.scaled_dot_product_attention(q, k, v)))
        h = F.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.output["dense"](h)


class ASTEmbeddings(nn.Module):
    """16 x 16 patches at stride 10 of a (mel, frames) image, frequency-major, behind a class and a distillation token."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 2 + FREQUENCY_PATCHES * TIME_PATCHES, WIDTH))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, WIDTH, PATCH, stride=PATCH_STRIDE)})

    def forward(self, mel: Tensor) -> Tensor:
        tokens = self.patch_embeddings["projection"](mel[:, None]).flatten(2).transpose(1, 2)
        front = torch.cat((self.cls_token, self.distillation_token), dim=1).expand(mel.shape[0], -1, -1)
        return torch.cat((front, tokens), dim=1) + self.position_embeddings


class ASTBackbone(nn.Module):
    """Mel images (B, 128, 66) -> (B, 72, D), frequency-major, without the two front tokens."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embeddings = ASTEmbeddings()
        self.encoder: Any = nn.ModuleDict({"layer": nn.ModuleList(ASTLayer() for _ in range(layers))})
        self.layernorm = nn.LayerNorm(WIDTH, eps=AST_EPS)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.embeddings(mel)
        for layer in self.encoder["layer"]:
            x = layer(x)
        return self.layernorm(x)[:, 2:]


class SynchformerAudio(nn.Module):
    """Mel segments (B, segments, 1, 128, 66) -> (B, segments, 6, D)."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.ast = ASTBackbone(layers)
        self.freq_attn_agg = ClassTokenPool(WIDTH, HEADS, INNER)

    def forward(self, mel: Tensor) -> Tensor:
        batch, segments = mel.shape[:2]
        x = self.ast(mel.flatten(0, 2)).unflatten(1, (FREQUENCY_PATCHES, TIME_PATCHES)).transpose(1, 2)
        return self.freq_attn_agg(x.flatten(0, 1)).view(batch, segments, TIME_PATCHES, -1)


class OffsetAttention(nn.Module):
    """Self-attention with separate q, k, v under the published names; (B, tokens, D) kept."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.query, self.value, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), HEAD_HEADS) for layer in (self.query, self.key, self.value))
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class OffsetBlock(nn.Module):
    """Pre-norm transformer block of the offset head; (B, tokens, D) kept."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = OffsetAttention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class OffsetTransformer(nn.Module):
    """[OFF, visual tokens, MOD, audio tokens] -> logits over the offset classes."""

    def __init__(self) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.vis_in_lnorm, self.aud_in_lnorm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": nn.Parameter(torch.zeros(1, HEAD_POSITIONS, WIDTH))})
        self.blocks = nn.ModuleList(OffsetBlock() for _ in range(HEAD_BLOCKS))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.off_head = nn.Linear(WIDTH, OFFSET_CLASSES)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        off, mod = (token.expand(visual.shape[0], -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat((off, self.vis_in_lnorm(visual), mod, self.aud_in_lnorm(audio)), dim=1)
        x = x + self.pos_emb_cfg["pos_emb"][:, : x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x)[:, 0])


class Synchformer(nn.Module):
    """Both towers and the offset head, under the published names."""

    def __init__(self, spec: SynchformerSpec | None = None) -> None:
        super().__init__()
        self.vfeat_extractor = SynchformerVisual(spec or SynchformerSpec())
        self.afeat_extractor = SynchformerAudio()
        self.vproj = nn.Linear(WIDTH, WIDTH)
        self.aproj = nn.Linear(WIDTH, WIDTH)
        self.transformer = OffsetTransformer()

    def compare(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Features of 14 segments, visual (B, 14, 8, D) and audio (B, 14, 6, D), -> logits (B, 21) over ``offset_grid``."""
        return self.transformer(self.vproj(visual.flatten(1, 2)), self.aproj(audio.flatten(1, 2)))


def offset_grid(device: torch.device | None = None) -> Tensor:
    """Offsets in seconds that the 21 classes stand for."""
    return torch.linspace(-MAX_OFFSET_S, MAX_OFFSET_S, OFFSET_CLASSES, device=device)


def audio_segments(samples: Tensor) -> Tensor:
    """16 kHz samples (B, N) -> normalised mel segments (B, segments, 1, 128, 66) for ``SynchformerAudio``.

    Raises:
        InputError: for less than one segment of 10240 samples.
        DependencyError: when torchaudio cannot be imported.
    """
    if samples.ndim != 2 or samples.shape[1] < SEGMENT_SAMPLES:
        raise InputError(
            f"Samples of shape {tuple(samples.shape)} were given; (B, {SEGMENT_SAMPLES} or more) at 16 kHz are needed."
        )
    try:
        from torchaudio.transforms import MelSpectrogram
    except Exception as error:
        raise DependencyError(f"Synchformer's audio input needs torchaudio, which cannot be imported ({error}).") from error
    analysis = MelSpectrogram(SAMPLE_RATE_HZ, n_fft=1024, win_length=400, hop_length=160, n_mels=128).to(samples.device)
    mel = torch.log(analysis(samples.unfold(1, SEGMENT_SAMPLES, SEGMENT_STRIDE_SAMPLES)) + 1e-6)
    mel = F.pad(mel, (0, max(0, MEL_FRAMES - mel.shape[-1])))[..., :MEL_FRAMES]
    return ((mel - MEL_MEAN) / (2 * MEL_STD)).unsqueeze(2)
