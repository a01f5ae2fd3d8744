"""All Triton kernels of the flow network together, in one guided step."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.types import Features

from ..core.test_fast_flow import ODD, V2_44K, error, given
from ..core.test_flow_network import network
from .interpreter import DEVICE


# Minutes in Triton's interpreter, no time on a GPU.
@(pytest.mark.slow if DEVICE == "cpu" else pytest.mark.gpu)
@torch.no_grad()
def test_same_velocity_with_triton_kernels() -> None:
    net = network(V2_44K).to(DEVICE)
    conditions, empty = net.conditions(given(2, ODD, torch.float32), ODD), net.conditions(Features(), ODD)
    x, t = torch.randn(2, ODD.latent, 40, device=DEVICE), torch.tensor(0.37)
    wanted = Accelerator(Speed("torch")).velocity(net, conditions, empty, 4.5, 2)(x, t)
    got = Accelerator(Speed("triton", graphs=False)).velocity(net, conditions, empty, 4.5, 2)(x, t)
    assert error(got.cpu(), wanted.cpu()) < 5e-6
