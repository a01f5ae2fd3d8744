"""The made-up weights and inputs of the goldens, and how the golden files are found and compared (their README)."""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
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


def draw_input(seed: int, name: str, shape: Iterable[int]) -> Tensor:
    return draw(seed, f"input.{name}", shape)


def draw_formula(seed: int, formula: str, shape: Iterable[int] | None = None, **sizes: int) -> Tensor:
    """An input as metadata describe it, such as ``input.mel*2-4`` or ``input.mel (2,n,66)*0.5 (B,S,F)``.

    The shape is the argument, or else the first bracket of the formula, where ``sizes`` give its letters. Other brackets
    are remarks.
    """
    name = re.match(r"input\.\w+", formula)
    assert name, f"no input is named in the formula {formula!r}"
    if shape is None:
        bracket = re.search(r"\(([^)]*)\)", formula)
        assert bracket, f"no shape in the formula {formula!r}"
        shape = [sizes[s] if s in sizes else int(s) for s in re.split(r"\s*,\s*", bracket[1].strip())]
    x = draw(seed, name[0], shape)
    bare = re.sub(r"\([^)]*\)", " ", formula[name.end() :])
    for operator, number in re.findall(r"([*+\-/])\s*(\d+(?:\.\d+)?(?:e-?\d+)?)", bare):
        value = float(number)
        x = {"*": x * value, "+": x + value, "-": x - value, "/": x / value}[operator]
    return x


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


def read_meta(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["meta"])


class Golden:
    """One golden file: ``meta`` and tensors by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta = read_meta(path)
        self.tensors = load_file(path)
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
    assert error <= relative * largest, f"{name}: error {error:.3g} is {error / largest:.3g} of the largest, allowed {relative}"


def load_drawn(module_of: Callable[[], nn.Module], seed: int, prefix: str = "") -> nn.Module:
    """The module of ``module_of`` with made-up weights, each named as in the published files (``prefix`` + own name)."""
    with torch.device("meta"):
        module = module_of()
    state = {name: draw(seed, prefix + name, shape) for name, shape in shapes_of(module).items()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def golden_files(pattern: str) -> list[Path]:
    """Files of the goldens folder that match; empty where the folder is absent."""
    return sorted(GOLDENS.glob(pattern)) if GOLDENS.is_dir() else []


def each_golden(pattern: str, is_large: Callable[[dict[str, Any]], bool] = lambda meta: False) -> pytest.MarkDecorator:
    """Runs a test on ``path`` for every file that matches, large ones marked slow; skips, saying so, if there is none."""
    params = [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if large else [])
        for path in golden_files(pattern)
        for large in [path.suffix != ".json" and is_large(read_meta(path))]
    ]
    if not params:
        reason = f"no {pattern} in the goldens folder {GOLDENS} (set MMAUDIO_GOLDENS)"
        params = [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]
    return pytest.mark.parametrize("path", params)
