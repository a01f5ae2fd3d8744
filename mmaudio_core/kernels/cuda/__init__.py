"""Kernels in CUDA C++, compiled at run time by the compiler that torch brings: for NVIDIA GPUs without Triton."""

from .runtime import available

__all__ = ["available"]
