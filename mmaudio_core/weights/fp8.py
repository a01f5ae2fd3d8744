"""Which weights may be kept in 8 bits, and where torch can do it; ``layers/float8.py`` does it."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import InputError
from ..layers.float8 import keep_in_float8_

FP8 = "fp8"
KINDS = ("flow", "clip", "synchformer")
"""Parts whose large weights can be kept so: those made of linear maps. VAE and vocoder stay as they are."""
MIN_ELEMENTS = 1 << 16
"""Smaller weights stay wide: they save nothing."""
SENSITIVE = ("audio_input_proj.", "final_layer.", "t_embed.")
"""Beginnings of the names of weights that stay wide: what the latent and the time come in through, and what the velocity is
read from. They are 5 % (large) to 9 % (small) of the flow network, and with them the velocity moves nearly twice as far.
"""


def check_storage(storage: str | None, device: torch.device) -> str | None:
    """``storage``: "fp8", or None for weights in the dtype that is computed in.

    Raises:
        InputError: for another word, or where this torch cannot convert such numbers on ``device``.
    """
    if storage not in (None, FP8):
        raise InputError(
            f"The weights storage {storage!r} is unknown; use {FP8!r}, or leave it out for the dtype of computing."
        )
    if storage == FP8 and not converts_float8(device):
        raise InputError(
            f"This torch ({torch.__version__}) cannot convert float8 numbers on {device.type}, which the weights storage "
            f"{FP8} needs; leave it out, or use another device."
        )
    return storage


def converts_float8(device: torch.device) -> bool:
    """Whether torch converts to float8 e4m3 and back on ``device``; it never has on Apple's MPS."""
    kind = getattr(torch, "float8_e4m3fn", None)
    if kind is None:
        return False
    try:
        return bool((torch.ones(2, device=device).to(kind).to(torch.float32) == 1).all())
    except (RuntimeError, TypeError):
        return False


def store_in_float8_(module: nn.Module, kind: str, dtype: torch.dtype) -> list[str]:
    """Changes a part to keep its large weights in float8 and to compute in ``dtype``; returns the names of those weights.

    Raises:
        InputError: for a part that has none to keep so.
    """
    if kind not in KINDS:
        raise InputError(f"The weights of the part {kind!r} cannot be kept in {FP8}; it is for {', '.join(KINDS)}.")
    return keep_in_float8_(module, dtype, MIN_ELEMENTS, SENSITIVE)
