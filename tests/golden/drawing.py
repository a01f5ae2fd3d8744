"""The made-up weights and inputs of the goldens, and how the golden files are found and compared (their README)."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("MMAUDIO_GOLDENS", ROOT.parent / "shared" / "goldens"))
MEDIA = Path(os.environ.get("MMAUDIO_MEDIA", ROOT.parent / "shared" / "media"))


def draw(seed: int, name: str, shape: Iterable[int]) -> Tensor:
    """The made-up tensor of ``name``: drawn in float64 by the README's rules, then float32."""
    shape = tuple(shape)
    x = np.asarray(np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode())).standard_normal(shape))
    if name.endswith("weight_g"):
        x = 0.7 * (1 + 0.1 * x)
    elif "conv_post" in name and name.endswith("bias"):
        x = 0.01 * x
    elif name.endswith(("latent_std", "data_std")):
        x = 1 + 0.1 * np.abs(x)
    elif name.startswith("input."):
        pass
    elif name.endswith(("latent_mean", "data_mean")):
        x = 0.1 * x
    elif len(shape) >= 2:
        x = x / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("weight"):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).reshape(shape)


def draw_input(seed: int, name: str, shape: Iterable[int], formula: str = "") -> Tensor:
    """``input.<name>`` and the scaling that a formula such as ``input.mel*2-4`` or ``input.audio (2,9)*0.5 (B,N)`` states."""
    x = draw(seed, f"input.{name}", shape)
    return scaled(x, formula.split(f"input.{name}", 1)[1]) if formula else x


def scaled(x: Tensor, operations: str) -> Tensor:
    """``x`` after operations like ``*2-4``; parts in parentheses and anything after the numbers are remarks."""
    import re

    bare = re.sub(r"\([^)]*\)", " ", operations)
    for operator, number in re.findall(r"([*+\-/])\s*(\d+(?:\.\d+)?(?:e-?\d+)?)", bare):
        value = float(number)
        x = {"*": x * value, "+": x + value, "-": x - value, "/": x / value}[operator]
    return x


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


def draw_state(seed: int, shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    return {name: draw(seed, name, shape) for name, shape in shapes.items()}


class Golden:
    """One golden file: ``meta`` and tensors by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt") as file:
            self.meta: dict[str, Any] = json.loads(file.metadata()["meta"])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.seed: int = self.meta["seed"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def check(self, name: str, out: Tensor, relative: float) -> None:
        assert_close(f"{self.path.name}: {name}", self[name], out, relative)


def assert_close(name: str, expected: Tensor, out: Tensor, relative: float) -> None:
    """Largest difference at most ``relative`` times the largest expected value."""
    assert out.shape == expected.shape, f"{name}: shape {tuple(out.shape)}, expected {tuple(expected.shape)}"
    assert torch.isfinite(out).all(), f"{name}: not finite"
    error = (out.double() - expected.double()).abs().max().item()
    largest = expected.double().abs().max().item()
    assert error <= relative * largest, f"{name}: error {error:.3g} is {error / largest:.3g} of {largest:.3g}, allowed {relative}"


def golden_files(pattern: str) -> list[Path]:
    """Files of the goldens folder that match; empty where the folder is absent."""
    return sorted(GOLDENS.glob(pattern)) if GOLDENS.is_dir() else []
