"""What is launched, recorded or captured on a GPU goes to the current device, which need not be the tensors'."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def on_device_of(x: torch.Tensor) -> AbstractContextManager[None]:
    """A block in which the device of ``x`` is the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
