"""The memory estimates hold: what is alive at once in each network, counted without computing, stays below them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmaudio_core.pipeline import memory
from mmaudio_core.spec.model import VAES, VARIANTS, VOCODERS, CLIPSpec, SynchformerSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.types import Features
from mmaudio_core.vocoder.chunked import FRAMES_PER_CHUNK, context_frames
from mmaudio_core.weights.build import build_module

SLACK = 3.5
"""An estimate far above the truth would unload other models for nothing."""


class Peak(TorchDispatchMode):
    """Bytes of the storages that operations made and that are alive at once."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._live = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self._now = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := (storage := tensor.untyped_storage())._cdata) not in self._live:
                self._live[key] = storage.nbytes()
                self._now += storage.nbytes()
                self.bytes = max(self.bytes, self._now)
                weakref.finalize(storage, self._gone, key)
        return out

    def _gone(self, key: int) -> None:
        self._now -= self._live.pop(key, 0)


def peak(module: torch.nn.Module, work: Callable[[], Any], *inputs: Tensor) -> int:
    with Peak([*module.parameters(), *module.buffers(), *inputs]) as counted, torch.no_grad():
        work()
    return counted.bytes


def on_meta(spec: Any, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        return build_module(spec).to(dtype)


def holds(estimate: int, needed: int, what: str) -> None:
    print(f"{what}: needs {needed / 1e6:.1f} MB, estimated {estimate / 1e6:.1f} MB")
    assert needed <= estimate <= SLACK * needed, f"{what}: {needed / 1e6:.1f} MB needed, {estimate / 1e6:.1f} MB estimated"


DTYPES = (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["small_16k", "large_44k_v2"])
def test_flow(name: str, dtype: torch.dtype) -> None:
    net = on_meta(VARIANTS[name], dtype)
    for seconds, batch in ((1.0, 1), (8.0, 1), (8.0, 4), (30.0, 2)):
        lengths = sequence_lengths(seconds, net.spec.audio)
        x, t = torch.empty(batch, lengths.latent, net.spec.latent_dim, device="meta"), torch.empty((), device="meta")

        def work(x: Tensor = x, t: Tensor = t, lengths: Any = lengths, batch: int = batch) -> None:
            both = [net.conditions(Features(), lengths, batch) for _ in range(2)]
            net.velocity(x, t, both[0])

        estimate = memory.flow_bytes(net.spec, batch, lengths.latent, dtype)
        holds(estimate, peak(net, work, x), f"{name} {seconds:g} s, batch {batch}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_encoders(dtype: torch.dtype) -> None:
    clip, sync = on_meta(CLIPSpec(), dtype), on_meta(SynchformerSpec(), dtype)
    for count in (1, 8):
        size = clip.spec.image_size
        frames = torch.empty(count, 3, size, size, dtype=torch.uint8, device="meta")
        needed = peak(clip, lambda frames=frames: clip.encode_image(frames, len(frames)))
        holds(memory.clip_image_bytes(clip.spec, count, dtype), needed, f"CLIP, {count} frames")
        ids = torch.empty(count, clip.spec.context_length, dtype=torch.int64, device="meta")
        needed = peak(clip, lambda ids=ids: clip.encode_tokens(ids))
        holds(memory.clip_text_bytes(clip.spec, count, dtype), needed, f"CLIP, {count} texts")
    for count in (1, 4):
        frames = torch.empty(8 + 8 * count, 3, 224, 224, dtype=torch.uint8, device="meta")
        needed = peak(sync, lambda frames=frames: sync.encode(frames, len(frames)))
        holds(memory.synchformer_bytes(sync.spec, count, dtype), needed, f"Synchformer, {count} segments")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", VAES)
def test_sound(name: str, dtype: torch.dtype) -> None:
    vae, vocoder = on_meta(VAES[name], dtype), on_meta(VOCODERS[name], dtype)
    vae.fold_weights_()
    for tokens in (60, 345, 1293):
        latents = torch.empty(1, tokens, vae.spec.latent_dim, device="meta")
        mel = torch.empty(1, vae.spec.mel_bins, 2 * tokens, device="meta")
        estimate = memory.vae_bytes(vae.spec, tokens, dtype)
        holds(estimate, peak(vae, lambda z=latents: vae.decode(z)), f"VAE {name} decode, {tokens} tokens")
        pieces = memory.vae_decode_bytes(vae.spec, tokens, dtype)
        holds(pieces, peak(vae, lambda z=latents: vae.decode_fast(z)), f"VAE {name} decode in pieces, {tokens} tokens")
        holds(estimate, peak(vae, lambda mel=mel: vae.encode(mel)), f"VAE {name} encode, {tokens} tokens")
    for frames in (100, FRAMES_PER_CHUNK + 2 * context_frames(vocoder.spec)):
        mel = torch.empty(1, vae.spec.mel_bins, frames, device="meta")
        needed = peak(vocoder, lambda mel=mel: vocoder(mel))
        holds(memory.vocoder_bytes(vocoder.spec, frames), needed, f"vocoder {name}, {frames} frames")
    longest = memory.vocoder_bytes(vocoder.spec, 100_000) - memory.vocoder_bytes(vocoder.spec, 10_000)
    assert longest == 90_000 * vocoder.spec.audio.hop_samples * 4, "only the samples grow with the clip"
