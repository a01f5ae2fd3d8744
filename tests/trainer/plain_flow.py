"""The flow network and AdamW written once more as plain functions of a state dictionary, to judge the trainer by.

From the published descriptions (arXiv 2412.15322, section 3; arXiv 1711.05101); nothing of the product is used here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def conv(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv1d(x.mT, weight, w.get(f"{name}.bias"), padding=(weight.shape[-1] - 1) // 2).mT


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def layer(w: Weights, name: str, x: Tensor) -> Tensor:
    return conv(w, name, x) if w[f"{name}.weight"].ndim == 3 else linear(w, name, x)


def gated(w: Weights, name: str, x: Tensor) -> Tensor:
    return layer(w, f"{name}.w2", F.silu(layer(w, f"{name}.w1", x)) * layer(w, f"{name}.w3", x))


def turned(x: Tensor, scale: float) -> Tensor:
    """Adjacent pairs of channels as complex numbers, turned by position * scale * 10000^(-2i/d)."""
    tokens, width = x.shape[-2:]
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2) / width) * scale
    angles = torch.outer(torch.arange(tokens).float(), frequencies)
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def qkv(w: Weights, name: str, x: Tensor, heads: int, scale: float | None) -> list[Tensor]:
    batch, tokens, _ = x.shape
    packed = linear(w, f"{name}.qkv", x).reshape(batch, tokens, heads, 64, 3)
    q, k, v = (packed[..., j].transpose(1, 2) for j in range(3))
    eps = torch.finfo(torch.float32).eps
    q = q / (q.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.q_norm.weight"]
    k = k / (k.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.k_norm.weight"]
    return [q, k, v] if scale is None else [turned(q, scale), turned(k, scale), v]


def norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q @ k.mT / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)


def modulation(w: Weights, name: str, c: Tensor) -> list[Tensor]:
    whole = linear(w, f"{name}.adaLN_modulation.1", F.silu(c))
    width = w[f"{name}.adaLN_modulation.1.weight"].shape[1]
    return list(whole.split(width, dim=-1))


def stream(
    w: Weights, names: list[str], xs: list[Tensor], cs: list[Tensor], heads: int, scales: list[float | None]
) -> list[Tensor]:
    """One block of one or three streams."""
    mods = [modulation(w, name, c) for name, c in zip(names, cs, strict=True)]
    parts = [
        qkv(w, f"{name}.attn", norm(x) * (1 + mod[1]) + mod[0], heads, scale)
        for name, x, mod, scale in zip(names, xs, mods, scales, strict=True)
    ]
    out = attention(*(torch.cat(p, dim=2) for p in zip(*parts, strict=True))).split([x.shape[1] for x in xs], dim=1)
    result = []
    for name, x, mod, attended in zip(names, xs, mods, out, strict=True):
        if len(mod) == 6:
            x = x + mod[2] * layer(w, f"{name}.linear1", attended)
            x = x + mod[5] * gated(w, f"{name}.ffn", norm(x) * (1 + mod[4]) + mod[3])
        result.append(x)
    return result


def velocity(w: Weights, x: Tensor, t: Tensor, clip: Tensor, sync: Tensor, text: Tensor, v2: bool) -> Tensor:
    width = w["audio_input_proj.0.bias"].shape[0]
    heads, latent, visual = width // 64, x.shape[1], clip.shape[1]
    act = F.silu if v2 else F.selu
    x = gated(w, "audio_input_proj.2", act(conv(w, "audio_input_proj.0", x)))
    first_clip, first_text = linear(w, "clip_input_proj.0", clip), linear(w, "text_input_proj.0", text)
    last = 2 if v2 else 1
    if v2:
        first_clip, first_text = F.silu(first_clip), F.silu(first_text)
    clip, text = gated(w, f"clip_input_proj.{last}", first_clip), gated(w, f"text_input_proj.{last}", first_text)
    sync = sync + w["sync_pos_emb"].repeat(1, 1, sync.shape[1] // 8, 1)[:, 0]
    sync = gated(w, "sync_input_proj.2", act(conv(w, "sync_input_proj.0", sync)))
    sync = F.interpolate(sync.mT, size=latent, mode="nearest-exact").mT

    n = width if v2 else 256
    # The last bit of a frequency of 10,000 turns the angle by a thousandth, so it is rounded as in the product: one power.
    frequencies = (10_000.0 if v2 else 1.0) / 10_000.0 ** (torch.arange(0, n, 2) / n)
    angles = t[:, None] * frequencies
    time = linear(w, "t_embed.mlp.0", torch.cat((torch.cos(angles), torch.sin(angles)), -1))
    time = linear(w, "t_embed.mlp.2", F.silu(time))
    pooled = linear(w, "clip_cond_proj", clip.mean(1)) + linear(w, "text_cond_proj", text.mean(1))
    c = (time + gated(w, "global_cond_mlp", pooled))[:, None]

    scales = [1.0, latent / visual, None]
    i = 0
    while f"joint_blocks.{i}.latent_block.attn.qkv.weight" in w:
        names = [f"joint_blocks.{i}.{s}_block" for s in ("latent", "clip", "text")]
        x, clip, text = stream(w, names, [x, clip, text], [c + sync, c, c], heads, scales)
        i += 1
    i = 0
    while f"fused_blocks.{i}.attn.qkv.weight" in w:
        (x,) = stream(w, [f"fused_blocks.{i}"], [x], [c + sync], heads, [1.0])
        i += 1
    shift, scale = modulation(w, "final_layer", c)
    return conv(w, "final_layer.conv", norm(x) * (1 + scale) + shift)


def adamw(value: Tensor, gradient: Tensor, rate: float, betas: tuple[float, float], eps: float, decay: float) -> Tensor:
    """The first update of AdamW, whose moments begin at zero."""
    m, v = (1 - betas[0]) * gradient, (1 - betas[1]) * gradient.square()
    m_hat, v_hat = m / (1 - betas[0]), v / (1 - betas[1])
    return value - rate * decay * value - rate * m_hat / (v_hat.sqrt() + eps)
