"""torch.nn.functional.scaled_dot_product_attention: torch's own choice of a kernel, and each of its kernels alone."""

from __future__ import annotations

import itertools
import warnings
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import first_line
from .protocol import HALVES, Backend, Needs, dense

KERNELS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
_NEEDS = {
    "flash": Needs(multiple=1),  # torch pads odd head widths itself
    "efficient": Needs((5, 0), dtypes=(*HALVES, torch.float32), widest=65536, multiple=1),
    "cudnn": Needs(nvidia=True),
}
_HEADINGS = {"flash": "Flash", "efficient": "Mem", "cudnn": "cuDNN"}
_PROBE_TOKENS = 8


def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attention by the kernel that torch chooses: q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d).

    mask: bool (True where a key counts) or float (added to the scores), broadcast to (B, H, Nq, Nk); or causal.
    """
    out = F.scaled_dot_product_attention(dense(q), dense(k), dense(v), attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)  # a view where the kernel wrote (B, N, H, d), as the fused ones do


def attend_with(kernel: str, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """``attend`` by one kernel of ``KERNELS``.

    Raises:
        RuntimeError: torch's own, where that kernel does not take these tensors.
    """
    with _only(kernel):
        return attend(q, k, v, mask=mask, causal=causal)


def _only(kernel: str) -> AbstractContextManager[Any]:
    api = _api()
    if api is not None:
        return api.sdpa_kernel(getattr(api.SDPBackend, KERNELS[kernel]))
    return torch.backends.cuda.sdp_kernel(
        enable_flash=kernel == "flash", enable_math=kernel == "math", enable_mem_efficient=kernel == "efficient"
    )


def _api() -> Any:
    """torch.nn.attention, from torch 2.3 on."""
    api = getattr(nn, "attention", None)
    return api if hasattr(api, "sdpa_kernel") else None


def _reason(kernel: str | None, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    # On a CPU torch has a kernel of its own under the name of flash attention, in every dtype.
    if kernel in _NEEDS and not (kernel == "flash" and device.type == "cpu"):
        unmet = _NEEDS[kernel].reason(device, dtype, head_dim)
        if unmet is not None:
            return unmet
    if kernel == "cudnn" and not hasattr(getattr(_api(), "SDPBackend", None), KERNELS["cudnn"]):
        return f"torch {torch.__version__} has no cuDNN attention; newer ones have"
    return _refusal(kernel, device, dtype, head_dim)


def _refusal(kernel: str | None, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """What torch says when it is asked to; how it was built and which widths a kernel takes differ by its version."""
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        try:
            x = torch.zeros(1, 1, _PROBE_TOKENS, head_dim, device=device, dtype=dtype)
            attend(x, x, x) if kernel is None else attend_with(kernel, x, x, x)
        except Exception as error:
            return f"torch refuses: {_explanation(_HEADINGS.get(kernel or '', ''), [str(w.message) for w in said], error)}"
    return None


def _explanation(heading: str, said: list[str], error: Exception) -> str:
    """The warning that follows "<heading> ... not used because:", else the error."""
    lines = [line.split(" (Triggered internally")[0].strip().rstrip(".") for line in said]
    for title, why in itertools.pairwise(lines):
        if heading and title.startswith(heading) and "not used because" in title:
            return why
    return first_line(error)


BACKENDS = (
    Backend("sdpa", partial(_reason, None), attend, note="torch's own choice"),
    Backend("sdpa-flash", partial(_reason, "flash"), partial(attend_with, "flash")),
    Backend("sdpa-efficient", partial(_reason, "efficient"), partial(attend_with, "efficient")),
    Backend("sdpa-cudnn", partial(_reason, "cudnn"), partial(attend_with, "cudnn")),
    Backend(
        "sdpa-math",
        partial(_reason, "math"),
        partial(attend_with, "math"),
        measured=False,
        note="the reference: holds all scores in memory; auto leaves it out",
    ),
)
