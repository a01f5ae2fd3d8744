"""Device and dtype: choices left to us are made once and said; a wish that cannot be met raises."""

from __future__ import annotations

import torch

from ..errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(wish: str | torch.device | None = None) -> torch.device:
    """``wish``, or CUDA, else Apple's MPS, else the CPU; of CUDA devices always one by number, as older torch wants it.

    Raises:
        InputError: when the wish is not a device of this machine.
    """
    if wish is None or wish == "auto":
        if torch.cuda.is_available():
            return _numbered(torch.device("cuda"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wish)
        torch.empty(0, device=device)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"The device {str(wish)!r} cannot be used here ({reason}); use cpu, or auto to let us choose."
        ) from None
    return _numbered(device)


def _numbered(device: torch.device) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" and device.index is None else device


def choose_dtype(wish: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """``wish``, or float32 on the CPU, bfloat16 on a GPU that computes in it, float16 on other GPUs.

    Raises:
        InputError: for a dtype other than float32, float16, bfloat16.
    """
    if wish is None or wish == "auto":
        if device.type == "cpu":
            return torch.float32
        # torch calls bfloat16 supported where it is only emulated; it is real from compute capability 8 on.
        bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if bf16 else torch.float16
    dtype = DTYPES.get(wish) if isinstance(wish, str) else wish
    if dtype is None or dtype not in DTYPES.values():
        raise InputError(f"The dtype {wish!r} cannot be computed in; use one of {', '.join(DTYPES)}.")
    if dtype != torch.float32 and not computes_in(dtype, device):
        raise InputError(f"This torch ({torch.__version__}) does not compute in {dtype} on {device}; use float32.")
    return dtype


def computes_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether what the model is made of runs in ``dtype`` there; older torch does not do all of it in float16 on a CPU."""
    functional = torch.nn.functional
    try:
        x = torch.zeros(1, 2, 8, dtype=dtype, device=device)
        x = functional.layer_norm(functional.conv1d(x, x[..., :3]), (6,))
        functional.pad(x, (1, 1), mode="replicate") @ x.new_zeros(8, 1)
        functional.scaled_dot_product_attention(x, x, x)
    except RuntimeError:
        return False
    return True
