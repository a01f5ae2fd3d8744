"""Device and dtype: choices left to us are made once and said; a wish that cannot be met raises."""

from __future__ import annotations

import torch

from ..errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(wish: str | torch.device | None = None) -> torch.device:
    """``wish``, or CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: when the wish is not a device of this machine.
    """
    if wish is None or wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wish)
        torch.empty(0, device=device)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"The device {str(wish)!r} cannot be used here ({reason}); use cpu, or auto to let us choose."
        ) from None
    return device


def choose_dtype(wish: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """``wish``, or float32 on the CPU, bfloat16 on a GPU that computes in it, float16 on other GPUs.

    Raises:
        InputError: for a dtype other than float32, float16, bfloat16.
    """
    if wish is None or wish == "auto":
        if device.type == "cpu":
            return torch.float32
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if bf16 else torch.float16
    dtype = DTYPES.get(wish) if isinstance(wish, str) else wish
    if dtype is None or dtype not in DTYPES.values():
        raise InputError(f"The dtype {wish!r} cannot be computed in; use one of {', '.join(DTYPES)}.")
    return dtype
