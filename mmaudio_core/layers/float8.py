"""Weights of linear maps and 1-D convolutions kept in 8 bits (float8 e4m3) and widened where they are used.

Memory, not speed: each use makes the wide weight anew. There is one scale per output channel, a power of two, so that widening
is exact in every number format and the whole error is that of the three-bit mantissa, at most 1 / 16 of a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

SLOTS = ("weight", "in_proj_weight")
NARROW, SCALES = (tuple(slot + ending for slot in SLOTS) for ending in ("_fp8", "_scale"))
FLOAT8_MAX = 448.0
LEAST_EXPONENT = -24
"""2^-24 is the smallest power of two that float16 holds."""


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (out, ...) -> float8 of the same shape, and float32 scales (out, 1, ...), powers of two."""
    wide = weight.float()
    largest = wide.abs().amax(dim=tuple(range(1, wide.ndim)), keepdim=True)
    exponent = torch.frexp(largest / FLOAT8_MAX)[1].clamp_min(LEAST_EXPONENT)
    scale = torch.ldexp(torch.ones_like(largest), exponent)
    return (wide / scale).to(torch.float8_e4m3fn), scale


def dequantize(narrow: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What ``quantize`` made, in ``dtype``."""
    return narrow.to(dtype) * scale.to(dtype)


class Float8:
    """In front of a module's class in the order of bases: its large weights are NAME_fp8, and NAME_scale, a buffer.

    Reading the attribute ``NAME`` gives the weight in ``float8_dtype``, new each time, so that whatever computes with the
    module goes on unchanged. Code that would keep such a copy, or change it in place, asks ``keeps_float8`` first.
    """

    in_float8: ClassVar[bool] = True
    float8_dtype: torch.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        """Moves, but keeps both number formats; a change of format changes that of the weight which is read."""
        plain: Any = super()
        module: Any = self
        narrow = {name: value.detach() for name, value in module._parameters.items() if name in NARROW and value is not None}
        scales = {name: module._buffers[name] for name in SCALES if name in module._buffers}
        result = plain._apply(fn, *args, **kwargs)
        for name, old in scales.items():
            new = module._buffers[name]
            if new.dtype != old.dtype:
                self.float8_dtype = new.dtype
                module._buffers[name] = old.to(new.device)
        for name, old in narrow.items():
            new = module._parameters[name]
            if new.dtype != old.dtype:
                module._parameters[name] = nn.Parameter(old.to(new.device), requires_grad=False)
        return result


def keeps_float8(module: nn.Module) -> bool:
    """Whether weights of ``module`` are kept in float8: what is read of them is a copy, made for one use."""
    return any(getattr(inner, "in_float8", False) for inner in module.modules())


@cache
def _float8_class(kind: type[nn.Module], slots: tuple[str, ...]) -> type[nn.Module]:
    def reader(slot: str) -> property:
        narrow, scale = f"{slot}_fp8", f"{slot}_scale"
        return property(lambda self: dequantize(self._parameters[narrow].detach(), self._buffers[scale], self.float8_dtype))

    return type(kind.__name__, (Float8, kind), {slot: reader(slot) for slot in slots})


def keep_in_float8_(module: nn.Module, dtype: torch.dtype, min_elements: int, sensitive: tuple[str, ...] = ()) -> list[str]:
    """Changes ``module`` to keep the weights of its large linear maps and 1-D convolutions in float8; returns their names.

    Those of fewer elements, or with names that begin as one of ``sensitive``, stay. What is on the meta device stays there,
    for a loader to fill. ``dtype`` is that of the weights when they are read.
    """
    changed = []
    for path, inner in list(module.named_modules()):
        names = {slot: f"{path}.{slot}" if path else slot for slot in SLOTS if _is_large(inner, slot, min_elements)}
        slots = tuple(slot for slot, name in names.items() if not name.startswith(sensitive))
        if not slots:
            continue
        weights = {slot: inner._parameters.pop(slot) for slot in slots}
        any_inner: Any = inner
        kind: Any = type(inner)
        any_inner.__class__ = _float8_class(kind, slots)
        any_inner.float8_dtype = dtype
        for slot, weight in weights.items():
            if weight is not None:
                put_float8(inner, slot, *_narrow(weight.detach()))
        changed += [names[slot] for slot in slots]
    return changed


def put_float8(module: nn.Module, slot: str, narrow: Tensor, scale: Tensor) -> None:
    """Gives a ``Float8`` module its weight ``slot``."""
    module.register_parameter(f"{slot}_fp8", nn.Parameter(narrow, requires_grad=False))
    module.register_buffer(f"{slot}_scale", scale)


def _is_large(module: nn.Module, slot: str, min_elements: int) -> bool:
    weight = module._parameters.get(slot)
    if weight is None or weight.numel() < min_elements or weight.ndim < 2:
        return False
    return slot == "in_proj_weight" or isinstance(module, (nn.Linear, nn.Conv1d))


def _narrow(weight: Tensor) -> tuple[Tensor, Tensor]:
    if not weight.is_meta:
        return quantize(weight)
    scale = weight.new_empty((weight.shape[0], *[1] * (weight.ndim - 1)), dtype=torch.float32)
    return torch.empty_like(weight, dtype=torch.float8_e4m3fn), scale
