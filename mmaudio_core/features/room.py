"""How much memory is free, and whether a CPU has room for weights a second time, in the layout that it multiplies fastest."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

log = logging.getLogger("mmaudio")

UNKNOWN_LIMIT = 1 << 30
"""Bytes that may be taken where the system does not say what is free."""
SHARE = 0.5
"""Of what is free: the rest is for the source's pages and for the work itself."""


def available_bytes() -> int | None:
    """Memory that can be had without swapping, page cache included, within a container's limit; None where nothing says it."""
    if sys.platform == "win32":
        return _windows_bytes()
    return _mac_bytes() if sys.platform == "darwin" else linux_bytes()


def linux_bytes(root: Path = Path("/")) -> int | None:
    """``available_bytes`` out of the files below ``root`` in which Linux says it."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    if not found:
        return None
    limit = _group_bytes(root / "sys/fs/cgroup")
    return found[0] if limit is None else min(found[0], limit)


def _group_bytes(folder: Path) -> int | None:
    """What a container's limit leaves; None where there is none."""
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        cache = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return None if limit == "max" else max(0, int(limit) - int(used) + cache)
    except (OSError, ValueError, IndexError):
        return None


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
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", *(f"unused{i}" for i in range(5)))),
        ]

    status = Status()
    status.length = ctypes.sizeof(status)
    done = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.available) if done else None


def has_room(what: str, size_bytes: int, available: int | None) -> bool:
    """Decides, and says so in the log, whether ``size_bytes`` of ``what``'s weights are copied."""
    fits = size_bytes <= (UNKNOWN_LIMIT if available is None else SHARE * available)
    free = "unknown" if available is None else f"{available / 1e9:.1f} GB"
    if fits:
        log.info("%s: %.2f GB of weights are laid out anew for the CPU (free memory: %s).", what, size_bytes / 1e9, free)
    else:
        log.info(
            "%s: its weights stay as they are; a copy for the CPU's multiplications would take %.2f GB (free memory: %s).",
            what,
            size_bytes / 1e9,
            free,
        )
    return fits
