"""How much memory a device has to give, as far as the system says it."""

from __future__ import annotations

import re
import subprocess
import sys

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
    if device.type != "cpu":
        return None
    if sys.platform == "win32":
        return _windows_bytes()
    if sys.platform == "darwin":
        return _mac_bytes()
    return available_bytes()


def _mac_bytes() -> int | None:
    try:
        said = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, check=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return pages_bytes(said)


def pages_bytes(said: str) -> int | None:
    """Free, inactive and speculative pages out of what macOS's ``vm_stat`` prints."""
    size = re.search(r"page size of (\d+) bytes", said)
    pages = [re.search(rf"^Pages {kind}:\s+(\d+)\.", said, re.MULTILINE) for kind in ("free", "inactive", "speculative")]
    if size is None or pages[0] is None:
        return None
    return int(size[1]) * sum(int(found[1]) for found in pages if found)


def _windows_bytes() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", *(f"unused{i}" for i in range(5)))),
        ]

    status = Status()
    status.length = ctypes.sizeof(status)
    done = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.available) if done else None
