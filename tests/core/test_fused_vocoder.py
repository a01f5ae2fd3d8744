"""The vocoder with a fused activation against the module, and which vocoder is chosen."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmaudio_core.kernels.sets import torch_kernels
from mmaudio_core.kernels.snake import anti_aliased_snake
from mmaudio_core.vocoder.choose import fast_vocoder
from mmaudio_core.vocoder.chunked import vocode
from mmaudio_core.vocoder.fused import FusedBigVGAN

from .test_autoencoder_vocoder import VOCODERS, vocoder_of


def drawn(name: str) -> Any:
    vocoder = vocoder_of(VOCODERS[name])
    for parameter_name, value in vocoder.named_parameters():
        if parameter_name.endswith(("alpha", "beta")):
            value.uniform_(-0.5, 0.5)
    return vocoder


@torch.no_grad()
@pytest.mark.parametrize("name", VOCODERS)
def test_same_samples(name: str) -> None:
    vocoder = drawn(name)
    mel = torch.randn(2, vocoder.spec.mel_bins, 23, dtype=torch.float64)
    fused, exact = FusedBigVGAN(drawn(name), anti_aliased_snake), drawn(name).double()
    wanted = exact(mel)
    # The plain snake keeps float32 inside.
    assert (FusedBigVGAN(drawn(name).double(), anti_aliased_snake)(mel) - wanted).abs().max() < 1e-6 * wanted.abs().max()
    assert (fused(mel.float()) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    pieces = vocode(fused, mel.float(), frames_per_chunk=9)
    assert (pieces - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_a_kernel_is_used_where_nothing_streams() -> None:
    vocoder = drawn("16k").to(torch.bfloat16)
    assert fast_vocoder(vocoder) is vocoder
    calls = []

    def kernel(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(x.shape)
        return anti_aliased_snake(x, *rest)

    vocoder.kernels = replace(torch_kernels(), anti_aliased_snake=kernel)
    fused: Any = fast_vocoder(vocoder)
    assert isinstance(fused, FusedBigVGAN)
    assert fast_vocoder(vocoder) is fused
    fused(torch.randn(1, 80, 4))
    assert len(calls) == len(vocoder.resblocks) * 6 + 1
    vocoder.conv_post.weight.data = vocoder.conv_post.weight.data.clone()
    assert fast_vocoder(vocoder) is not fused


def test_a_vocoder_that_is_moved_leaves_nothing_behind() -> None:
    vocoder, mel = drawn("16k"), torch.randn(1, 80, 4)
    with torch.no_grad():
        wanted = vocoder(mel)
    vocoder.to(torch.bfloat16)
    vocoder.kernels = replace(torch_kernels(), anti_aliased_snake=lambda *given: anti_aliased_snake(*given))
    fast_vocoder(vocoder)(mel)
    kept = weakref.ref(fast_vocoder(vocoder))
    assert isinstance(kept(), FusedBigVGAN)
    vocoder.to(torch.float32)
    gc.collect()
    assert kept() is None
    assert (fast_vocoder(vocoder)(mel) - wanted).norm() < 0.05 * wanted.norm()
