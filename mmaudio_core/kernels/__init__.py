"""Kernels, each with its plain PyTorch reference under one stem."""
