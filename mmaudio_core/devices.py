"""What is launched, recorded or captured on a GPU goes to the current device, which need not be the tensors'."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


def on_device_of(x: torch.Tensor) -> AbstractContextManager[None]:
    """A block in which the device of ``x`` is the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def event_ms(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Milliseconds that ``calls`` calls, one after another, take on a CUDA device by its own clock; waits for their end."""
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
