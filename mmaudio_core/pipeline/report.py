"""How long each stage took and how much memory it reached."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class StageCost:
    """One stage: wall seconds and peak bytes, of the process on a CPU or of the allocator on a CUDA device."""

    name: str
    seconds: float
    peak_bytes: int


@dataclass
class Report:
    """Costs of the stages run so far, in order."""

    device: torch.device
    stages: list[StageCost] = field(default_factory=list)
    _inner_seconds: float = 0.0
    _runs: list[Report] = field(default_factory=list, repr=False)

    @contextmanager
    def run(self) -> Iterator[Report]:
        """Yield a report of what runs inside alone; this one counts it too."""
        own = Report(self.device)
        self._runs.append(own)
        try:
            yield own
        finally:
            self._runs = [other for other in self._runs if other is not own]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures what runs inside, also when it raises; a repeated name adds to its row.

        A stage inside another one counts for itself only: its seconds are taken off the outer one's, whose peak is measured
        from then on.
        """
        reset_peak(self.device)
        outer_inner, self._inner_seconds = self._inner_seconds, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - start
            self._add(StageCost(name, seconds - self._inner_seconds, peak_bytes(self.device)))
            self._inner_seconds = outer_inner + seconds

    def _add(self, cost: StageCost) -> None:
        for run in self._runs:
            run._add(cost)
        for i, old in enumerate(self.stages):
            if old.name == cost.name:
                self.stages[i] = StageCost(cost.name, old.seconds + cost.seconds, max(old.peak_bytes, cost.peak_bytes))
                return
        self.stages.append(cost)

    def table(self) -> str:
        """A text table with a closing line of totals."""
        where = "GPU memory" if self.device.type == "cuda" else "memory"
        width = max((len(s.name) for s in self.stages), default=5)
        rows = [f"{'stage':<{width}}  {'seconds':>8}  {'peak ' + where:>16}"]
        total = StageCost("total", sum(s.seconds for s in self.stages), max((s.peak_bytes for s in self.stages), default=0))
        rows += [f"{s.name:<{width}}  {s.seconds:>8.2f}  {s.peak_bytes / 2**20:>12.0f} MiB" for s in (*self.stages, total)]
        return "\n".join(rows)


def reset_peak(device: torch.device) -> None:
    """Lets the peak of memory begin anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        _CLEAR.write_text("5")  # Linux: the resident peak starts anew; elsewhere the peak is of the whole run


def peak_bytes(device: torch.device) -> int:
    """The most memory in use since ``reset_peak``: of the allocator on a CUDA device, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return _peak_bytes_elsewhere()


def _peak_bytes_elsewhere() -> int:
    if sys.platform == "win32":
        return _windows_peak_bytes()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _windows_peak_bytes() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = [
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            *((name, ctypes.c_size_t) for name in ("PeakWorkingSetSize", "WorkingSetSize")),
            *((f"unused{i}", ctypes.c_size_t) for i in range(6)),
        ]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    kernel32.K32GetProcessMemoryInfo.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD]
    kernel32.K32GetProcessMemoryInfo(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.PeakWorkingSetSize)
