"""How the host computes attention, as a wish for our own backends.

The host lets its user choose for everything (--use-sage-attention, --use-flash-attention, xformers where it is installed) and
nodes for one MODEL. Where its choice cannot be met it goes on with torch's; so do we: give the wish with ``fall_back``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...mmaudio_core.attention.choose import Chooser
from ...mmaudio_core.attention.listing import AUTO, BACKENDS
from ...mmaudio_core.attention.protocol import Attention, Backend

log = logging.getLogger("mmaudio")

_OURS = {"attention_sage": "sage", "attention_flash": "flash2", "attention_xformers": "xformers"}
_LEFT_TO_US = {"attention_pytorch", "attention_split", "attention_sub_quad", "attention_basic"}
_OVERRIDE = "optimized_attention_override"


def host_wish() -> str:
    """The backend that the host computes attention with, or "auto" where it said nothing in particular.

    Its flags for torch's, split and sub-quadratic attention are about speed and memory alone, and "auto" serves both.
    """
    # The function tells more than the flags: their precedence differs by version, and nodes put other functions in its place.
    name = getattr(_module().optimized_attention, "__name__", "")
    if name not in _OURS and name not in _LEFT_TO_US:
        log.info("The host computes attention with %s, which this pack has not; it chooses itself.", name or "its own function")
    return _OURS.get(name, AUTO)


def host_backends() -> tuple[Backend, ...]:
    """Our backends without those that the host's user forbade (--disable-xformers)."""
    try:
        from comfy.cli_args import args
    except ImportError:
        return BACKENDS
    forbidden = {"xformers"} if getattr(args, "disable_xformers", False) else set()
    return tuple(backend for backend in BACKENDS if backend.name not in forbidden)


def host_attention() -> Attention:
    """Attention as the host's user chose it, or the fastest that is measured where the choice is ours."""
    return Chooser(host_backends()).bound(host_wish(), fall_back=True)


def model_attention(transformer_options: Mapping[str, Any] | None) -> Attention | None:
    """The attention that a node set on this MODEL, None where none did.

    It is called as the host calls it: q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d).
    """
    if not transformer_options or _OVERRIDE not in transformer_options:
        return None
    module = _module()

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The host's own function looks for the override and hands it what it needs.
        return module.optimized_attention(q, k, v, q.shape[1], skip_reshape=True, transformer_options=transformer_options)

    return attention


def _module() -> Any:
    import comfy.ldm.modules.attention

    return comfy.ldm.modules.attention
