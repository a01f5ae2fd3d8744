"""What the kernels without a backward pass share."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from .tokens import check_dtypes


def check_inference(kernel: str, **tensors: Tensor | None) -> None:
    """Refuses what ``kernel`` cannot compute or differentiate.

    Raises:
        InputError: when a gradient is wanted of one of ``tensors``, or one of them is not float16, bfloat16 or float32, or
            they are on different devices.
    """
    if torch.is_grad_enabled():
        for name, tensor in tensors.items():
            if tensor is not None and tensor.requires_grad:
                raise InputError(
                    f"{name} needs a gradient, which Triton's {kernel} cannot give; run it under torch.no_grad(), or use the "
                    "plain PyTorch one."
                )
    check_dtypes(**tensors)
