"""All CUDA C++ kernels together on the emulated device, in the mixtures of dtypes that runs in half precision bring."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.kernels import sets
from mmaudio_core.kernels.cuda import runtime
from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.types import Features
from mmaudio_core.vocoder.choose import fast_vocoder
from mmaudio_core.vocoder.fused import FusedBigVGAN

from ..core.test_autoencoder_vocoder import VOCODERS, vocoder_of
from ..core.test_fast_flow import error, given
from ..core.test_flow_network import LENGTHS, network
from .emulator import Emulator

ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of a whole step, guidance included, between two ways to round."""


@pytest.fixture(autouse=True)
def emulated(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "launch", emulator.launch)
    monkeypatch.setattr(sets, "cuda_reason", lambda _: None)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_same_velocity(dtype: torch.dtype) -> None:
    net = network().to(dtype)
    conditions, empty = net.conditions(given(2, dtype=dtype), LENGTHS), net.conditions(Features(), LENGTHS)
    x, t = torch.randn(2, LENGTHS.latent, 20), torch.tensor(0.37)
    wanted, got = (Accelerator(Speed(kernels)).velocity(net, conditions, empty, 4.5, 2)(x, t) for kernels in ("torch", "cuda"))
    assert error(got, wanted) < ROUNDING[dtype]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_same_samples(dtype: torch.dtype) -> None:
    vocoder = vocoder_of(VOCODERS["16k"]).to(dtype)
    mel = torch.randn(1, vocoder.spec.mel_bins, 5)
    wanted = vocoder(mel)
    vocoder.kernels = sets.cuda_kernels()
    fused = fast_vocoder(vocoder)
    assert isinstance(fused, FusedBigVGAN)
    assert error(fused(mel), wanted) < ROUNDING[dtype]
