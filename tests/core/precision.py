"""Half precision on the CPU, where this torch has it."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.pipeline.device import computes_in


def needs(dtype: torch.dtype) -> None:
    """Skips a test on a torch that does not compute in ``dtype`` on the CPU."""
    if not computes_in(dtype, torch.device("cpu")):
        pytest.skip(f"torch {torch.__version__} does not compute in {dtype} on the CPU")
