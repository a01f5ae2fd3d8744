"""How much memory a device has to give, as far as the system says it."""

from __future__ import annotations

import torch

from ..features.room import available_bytes


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still take on ``device``; None where nothing says it.

    CUDA: what the driver calls free (its context is taken off already) and what torch has reserved without using it. CPU: what
    can be had without swapping, within the container's limit. MPS: what is left of the recommended maximum.
    """
    if device.type == "cuda":
        reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved - used
    if device.type == "mps":
        most = getattr(torch.mps, "recommended_max_memory", None)  # newer than the oldest torch that works
        return None if most is None else max(0, most() - torch.mps.driver_allocated_memory())
    return available_bytes() if device.type == "cpu" else None
