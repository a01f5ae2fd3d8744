"""What an attention backend is, and the reasons why one cannot run.

Shapes: q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d); softmax of q k^T / sqrt(d), no mask, no dropout.
A reason is a clause without a full stop that completes "<backend> cannot run here: ...".
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DependencyError, first_line

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Reason = Callable[[torch.device, torch.dtype, int], str | None]
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    reason: (device, dtype, head width d) -> why it cannot run there, None where it can; may import an optional package.
    exact: False where it quantises, so that its result is not attention up to rounding; "auto" never takes such a one.
    measured: whether "auto" considers it; ``note`` says why not, or what else a user should know.
    """

    name: str
    reason: Reason
    run: Attention
    exact: bool = True
    measured: bool = True
    note: str = ""


@dataclass(frozen=True)
class Package:
    """An optional package: ``attribute`` of the first of ``modules`` that can be imported; ``pip`` is its published name."""

    modules: tuple[str, ...]
    attribute: str
    pip: str

    def load(self) -> Any:
        """The attribute.

        Raises:
            DependencyError: with the reason, when no module is there, or it fails at import, whatever it raises.
        """
        failures = []
        for module in sorted(self.modules, key=lambda name: name not in sys.modules):
            try:
                return getattr(importlib.import_module(module), self.attribute)
            except (Exception, SystemExit) as error:  # broken binaries raise OSError, RuntimeError and worse
                missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
                if not missing:
                    failures.append(f"{module}{self._version()} cannot be used ({type(error).__name__}: {first_line(error)})")
        raise DependencyError(failures[0] if failures else f"{self.pip} is not installed (pip install {self.pip})")

    def reason(self) -> str | None:
        """Why ``load`` raises; None where it does not."""
        try:
            self.load()
        except DependencyError as error:
            return str(error)
        return None

    def _version(self) -> str:
        try:
            return f" {importlib.metadata.version(self.pip)}"
        except importlib.metadata.PackageNotFoundError:
            version = getattr(sys.modules.get(self.modules[0].split(".")[0]), "__version__", "")
            return f" {version}" if version else ""


@dataclass(frozen=True)
class Needs:
    """What a backend's GPU kernels need.

    capability: lowest compute capability of an NVIDIA GPU; below: the first one that is too new.
    widest: largest head width d; multiple: what d has to be a multiple of.
    nvidia: whether AMD's GPUs, which torch calls CUDA devices too, are out.
    """

    capability: tuple[int, int] = (8, 0)
    below: tuple[int, int] | None = None
    dtypes: tuple[torch.dtype, ...] = HALVES
    widest: int = 256
    multiple: int = 8
    nvidia: bool = False

    def reason(self, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
        """Why a device, dtype or head width is not enough; None where they are."""
        if device.type != "cuda":
            return f"it needs a CUDA device, and this is {device.type}"
        if not torch.cuda.is_available():
            return "it needs a CUDA device, and torch finds none"
        if torch.version.hip is None:
            found = torch.cuda.get_device_capability(device)
            if found < self.capability or (self.below is not None and found >= self.below):
                wanted = _dotted(self.capability) + (" or newer" if self.below is None else f" to below {_dotted(self.below)}")
                return f"it needs a GPU of compute capability {wanted}; this one has {_dotted(found)}"
        elif self.nvidia:
            return "it needs an NVIDIA GPU, and this is AMD's"
        if dtype not in self.dtypes:
            return f"it computes in {' or '.join(map(short, self.dtypes))}, not in {short(dtype)}"
        if head_dim > self.widest:
            return f"its heads are at most {self.widest} wide, not {head_dim}"
        if head_dim % self.multiple:
            return f"the width of its heads is a multiple of {self.multiple}, not {head_dim}"
        return None


def of_package(package: Package, needs: Needs) -> Reason:
    """The reason of a backend in an optional package, which is imported only where the rest is fine."""

    def reason(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
        return needs.reason(device, dtype, head_dim) or package.reason()

    return reason


def dense(x: Tensor) -> Tensor:
    """``x`` itself where the elements of a head lie side by side, which all kernels need, else a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def tokens_first(*tensors: Tensor) -> tuple[Tensor, ...]:
    """(B, H, N, d) each -> (B, N, H, d), the layout of most packages, as views wherever ``dense`` needs no copy."""
    return tuple(dense(t.transpose(1, 2)) for t in tensors)


def short(dtype: torch.dtype) -> str:
    """A dtype without "torch."."""
    return str(dtype).removeprefix("torch.")


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
