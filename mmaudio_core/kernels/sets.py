"""The kernels that a fast path calls, as one set behind one name."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, first_line
from . import adaln, divided_attention, gate, heads, pixel_norm, quick_gelu, snake, swiglu

log = logging.getLogger("mmaudio")

SETS = ("auto", "torch", "triton", "cuda", "compile")
STEMS = {
    "adaln": "adaln",
    "gated_add": "gate",
    "gated_add_adaln": "gate",
    "split_heads_into": "heads",
    "swiglu": "swiglu",
    "linear_quick_gelu": "quick_gelu",
    "divided_attention": "divided_attention",
    "anti_aliased_snake": "snake",
    "pixel_norm_silu": "pixel_norm",
    "conv3": "conv3",
}
"""The file of each function."""
PRODUCTS = ("linear_quick_gelu", "divided_attention")


@dataclass(frozen=True)
class Kernels:
    """Functions with the signatures of the plain references in this folder; ``name`` is what the user calls the set.

    conv3: the convolution with three taps, or None where the library's own is used.
    """

    name: str
    adaln: Callable[..., Tensor]
    gated_add: Callable[..., Tensor]
    gated_add_adaln: Callable[..., tuple[Tensor, Tensor]]
    split_heads_into: Callable[..., None]
    swiglu: Callable[[Tensor], Tensor]
    linear_quick_gelu: Callable[..., Tensor]
    divided_attention: Callable[..., Tensor]
    anti_aliased_snake: Callable[..., Tensor]
    pixel_norm_silu: Callable[[Tensor], tuple[Tensor, Tensor]]
    conv3: Callable[..., Tensor] | None = None


def torch_kernels() -> Kernels:
    """The plain references."""
    return Kernels(
        name="torch",
        adaln=adaln.adaln,
        gated_add=gate.gated_add,
        gated_add_adaln=gate.gated_add_adaln,
        split_heads_into=heads.split_heads_into,
        swiglu=swiglu.swiglu,
        linear_quick_gelu=quick_gelu.linear_quick_gelu,
        divided_attention=divided_attention.divided_attention,
        anti_aliased_snake=snake.anti_aliased_snake,
        pixel_norm_silu=pixel_norm.pixel_norm_silu,
    )


def triton_kernels(device: torch.device) -> Kernels:
    """Those in Triton; imports it. Products in float32, or on GPUs before Ampere, are left to the library, which is faster."""
    from . import triton as folder
    from .triton import adaln, conv3, divided_attention, gate, heads, pixel_norm, quick_gelu, snake, swiglu  # noqa: F401

    own = {name: getattr(getattr(folder, stem), name) for name, stem in STEMS.items()}
    if device.type == "cuda":
        plain = torch_kernels()
        old = torch.cuda.get_device_capability(device) < (8, 0)
        for name in PRODUCTS:
            own[name] = getattr(plain, name) if old else _in_half(own[name], getattr(plain, name))
        own["conv3"] = None if old else own["conv3"]
    return Kernels(name="triton", **own)


def _in_half(own: Callable[..., Tensor], plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(x: Tensor, *args: Any) -> Tensor:
        return (own if x.dtype in (torch.float16, torch.bfloat16) else plain)(x, *args)

    return function


def cuda_kernels() -> Kernels:
    """Those in CUDA C++ where there are some, else the plain references."""
    from .cuda import adaln, gate, heads, snake

    return replace(
        torch_kernels(),
        name="cuda",
        adaln=adaln.adaln,
        gated_add=gate.gated_add,
        gated_add_adaln=gate.gated_add_adaln,
        split_heads_into=heads.split_heads_into,
        anti_aliased_snake=snake.anti_aliased_snake,
    )


def triton_reason(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run there, as a clause; None where they can."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"they need a CUDA device, and this is {device.type}"
    try:
        import triton
        import triton.language
    except Exception as error:  # a broken installation raises more than ImportError
        package = "triton-windows" if sys.platform == "win32" else "triton"
        return f"Triton cannot be imported ({type(error).__name__}: {error}); pip install {package}"
    if not hasattr(triton.language, "join"):
        return f"they need Triton 3.0 or newer, and this is {triton.__version__}"
    return _launch_reason(device)


@cache
def _launch_reason(device: torch.device) -> str | None:
    """Why Triton cannot start a kernel there, as a clause. Tried once: only then does Triton look for what it compiles with."""
    given = torch.ones(1, 2, device=device)
    try:
        from .triton import swiglu

        swiglu.swiglu(given).cpu()  # waits, so that an error of the device comes here too
    except torch.cuda.OutOfMemoryError:
        raise  # passes, and is not remembered
    except Exception as error:
        return (
            f"Triton cannot start a kernel ({type(error).__name__}: {first_line(error)}); it needs a C compiler, Python's "
            "headers and a GPU that it knows"
        )
    return None


def cuda_reason(device: torch.device) -> str | None:
    """Why the CUDA C++ kernels cannot run there, as a clause; None where they can."""
    from .cuda.runtime import available

    return available(device)


def choose_kernels(wish: str, device: torch.device) -> Kernels:
    """The set that ``wish`` names; "auto" is Triton's, else CUDA C++, on a CUDA device, and plain PyTorch
    everywhere else; "compile" is plain PyTorch too.

    Raises:
        InputError: when the wish is unknown, or cannot run here, with the reason.
    """
    if wish not in SETS:
        raise InputError(f"The kernels {wish!r} are unknown; use one of {', '.join(SETS)}.")
    if wish in ("torch", "compile"):
        return torch_kernels()
    tried = (("triton", triton_reason, triton_kernels), ("cuda", cuda_reason, lambda _: cuda_kernels()))
    if wish == "auto" and device.type != "cuda":
        return torch_kernels()  # also where Triton's interpreter is on, which is thousands of times slower
    reasons: list[str] = []
    for name, reason_of, make in tried:
        if wish in ("auto", name):
            reason = reason_of(device)
            if reason is None:
                if reasons:
                    log.info("The kernels of %r are used (%s).", name, "; ".join(reasons))
                return make(device)
            reasons.append(f"{name}: {reason.rstrip('.')}")
    if wish != "auto":
        raise InputError(f"The kernels {wish!r} cannot run here: {reasons[0].split(': ', 1)[1]}. Use auto or torch.")
    log.info("No fused kernels can run here (%s); plain PyTorch is used.", "; ".join(reasons))
    return torch_kernels()
