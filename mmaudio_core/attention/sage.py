"""SageAttention (arXiv 2410.02367, 2411.10958): attention in 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .protocol import Backend, Needs, Package, of_package, tokens_first

PACKAGE = Package(("sageattention",), "sageattn", "sageattention")


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d), with queries and keys rounded to 8 bits.

    Raises:
        InputError: where gradients are wanted; the package gives none, silently.
    """
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise InputError("SageAttention has no gradients, and they were asked for; use another attention backend for training.")
    # Named, because the first versions had another argument in its place and no such layout.
    out: Tensor = PACKAGE.load()(*tokens_first(q, k, v), tensor_layout="NHD", is_causal=False)
    return out.flatten(2)


BACKENDS = (
    Backend(
        "sage",
        of_package(PACKAGE, Needs(widest=128)),
        attend,
        exact=False,
        measured=False,
        note="quantised to 8 bits, so the sound differs a little; only where it is asked for",
    ),
)
