"""The mel decoder's fast path against the module, whole and in pieces."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmaudio_core.autoencoder.fast import CONTEXT_BEFORE, CONTEXT_LATENTS, FastDecoder
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.kernels.sets import torch_kernels
from mmaudio_core.spec.model import VAESpec

SPEC = VAESpec(mel_bins=12, latent_dim=20, width=8)


def vae(dtype: torch.dtype = torch.float64, folded: bool = True) -> Any:
    torch.manual_seed(0)
    module = VAE(SPEC).requires_grad_(False).eval()
    module.decoder.learnable_gain.fill_(0.3)
    module.data_mean.normal_()
    module.data_std.uniform_(0.5, 2)
    module.to(dtype)
    return module.fold_weights_() if folded else module


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@torch.no_grad()
@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("tokens", "chunk"), [(1, 512), (61, 512), (61, 7), (61, 20), (45, 1)])
def test_same_mel_in_float64(tokens: int, chunk: int, folded: bool) -> None:
    module = vae(folded=folded)
    latents = torch.randn(2, tokens, 20, dtype=torch.float64)
    # The plain pixel norm keeps its statistics in float32.
    assert error(FastDecoder(module)(latents, chunk), module.decode(latents)) < 1e-6
    assert error(FastDecoder(module)(latents, chunk), FastDecoder(module)(latents)) < 1e-14


@torch.no_grad()
def test_same_mel_in_float32_with_packed_weights() -> None:
    exact, module = vae(), vae(torch.float32)
    latents = torch.randn(1, 75, 20)
    wanted = exact.decode(latents.double())
    assert error(module.decode_fast(latents), wanted) < 3e-6
    assert error(FastDecoder(module)(latents, 16), wanted) < 3e-6


@torch.no_grad()
def test_what_a_latent_reaches_after_the_attention() -> None:
    """A NaN in one latent behind the attention poisons exactly 18 latents' frames to either side."""
    decoder = FastDecoder(vae())
    x = torch.randn(1, 80, 32, dtype=torch.float64)
    x[:, 40] = torch.nan
    bad = decoder._up(x).isnan().any(dim=-1)[0].nonzero().flatten()
    assert (bad.min() // 2, bad.max() // 2) == (40 - CONTEXT_LATENTS, 40 + CONTEXT_LATENTS)
    assert len(bad) == bad.max() - bad.min() + 1


@torch.no_grad()
def test_what_a_latent_reaches_before_the_attention() -> None:
    decoder = FastDecoder(vae())
    z = torch.randn(1, 20, 20, dtype=torch.float64)
    z[:, 10] = torch.nan
    bad = decoder._near(z, 0, 20).isnan().any(dim=-1)[0].nonzero().flatten()
    assert bad.tolist() == list(range(10 - CONTEXT_BEFORE, 11 + CONTEXT_BEFORE))


@torch.no_grad()
def test_kernels_and_changed_weights_are_seen() -> None:
    module = vae(torch.float32)
    latents = torch.randn(1, 9, 20)
    calls = []

    def kernel(x: torch.Tensor) -> Any:
        calls.append(x.shape)
        return torch_kernels().pixel_norm_silu(x)

    first = module.decode_fast(latents)
    assert module.fast_decoder() is module.fast_decoder()
    module.kernels = replace(torch_kernels(), pixel_norm_silu=kernel)
    assert torch.equal(module.decode_fast(latents), first)
    assert calls
    module.decoder.conv_out.weight.mul_(2)
    again = module.decode_fast(latents)
    assert error(again, module.decode(latents)) < 3e-6 < error(again, first)


@torch.no_grad()
def test_a_decoder_that_is_moved_leaves_nothing_behind() -> None:
    """A host takes it off the GPU within a module of its own; views of the weights would keep their memory there."""
    module, latents = vae(torch.bfloat16), torch.randn(1, 9, 20)
    first = module.decode_fast(latents)
    kept = weakref.ref(module.fast_decoder())
    holder = torch.nn.ModuleList([module]).to(torch.float64)
    gc.collect()
    assert kept() is None
    again = module.decode_fast(latents)
    assert error(again, module.decode(latents)) < 3e-6
    assert error(first, again) < 0.1
    assert holder.to(torch.float64)[0].decode_fast(latents).equal(again)
