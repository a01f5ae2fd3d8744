"""Kernels in Triton; imported only where Triton is."""
