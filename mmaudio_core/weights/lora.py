"""LoRA files (arXiv 2106.09685): whether one was made for a flow network, from its names and shapes alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError
from .safetensors_file import read_header
from .sniff import sniff

DOWN, UP = (".lora_A.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_up.weight")
PREFIXES = ("diffusion_model.", "transformer.", "")
FLAT_PREFIX = "lora_unet_"
MARKS = (b"joint_blocks", b"fused_blocks")
_HEAD_BYTES = 1 << 18


def looks_like_lora(path: str | os.PathLike[str]) -> bool:
    """Whether a safetensors file names LoRA matrices of a flow network like ours; reads at most 256 KB."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return b"lora" in head and any(mark in head for mark in MARKS)


@dataclass(frozen=True)
class LoRAPair:
    """The two matrices of one layer: ``target`` is the network's weight, ``down`` and ``up`` are names in the file.

    The weight grows by alpha / r * up @ down, r being the rows of ``down`` and alpha the number under ``alpha`` in the file, r
    where there is none.
    """

    target: str
    down: str
    up: str
    alpha: str


def check_lora(path: str | os.PathLike[str], weights: Mapping[str, tuple[int, ...]]) -> int:
    """The number of layers that the LoRA in ``path`` changes in a network with ``weights`` (name -> shape).

    Raises:
        WeightsError: when it changes layers that the network does not have, or of other widths, or is no LoRA.
    """
    return len(match_lora(path, weights))


def match_lora(path: str | os.PathLike[str], weights: Mapping[str, tuple[int, ...]]) -> list[LoRAPair]:
    """What the LoRA in ``path`` changes in a network with ``weights`` (name -> shape), in any of the usual spellings.

    Raises:
        WeightsError: when it changes layers that the network does not have, or of other widths, or is no LoRA.
    """
    name = Path(path).name
    if sniff(Path(path)) != "safetensors":
        raise WeightsError(f"{name} is no safetensors file, and LoRAs are read from those only; save it as one.")
    shapes = {key: tuple(entry.shape) for key, entry in read_header(Path(path)).entries.items()}
    pairs = _pairs(shapes)
    if not pairs:
        raise WeightsError(f"{name} is no LoRA: it has no pairs of lora_A and lora_B (or lora_down and lora_up) tensors.")
    flat = {key.removesuffix(".weight").replace(".", "_"): key for key in weights}
    found: list[LoRAPair] = []
    strangers, misfits = [], []
    for module, names in pairs.items():
        target = _target(module, weights, flat)
        if target is None:
            strangers.append(module)
            continue
        shape, down, up = weights[target], *(shapes[name] for name in names)
        found.append(LoRAPair(target, *names, f"{module}.alpha"))
        if up[0] != shape[0] or math.prod(down[1:]) * math.prod(up[2:]) != math.prod(shape[1:]) or up[1] != down[0]:
            misfits.append(f"{target} {shape}")
    if len(strangers) == len(pairs):
        raise WeightsError(f"{name} is a LoRA of another model: this network has no layer such as {strangers[0]}.")
    if misfits:
        raise WeightsError(
            f"{name} is a LoRA of another variant: {len(misfits)} of its {len(pairs)} layers do not fit this network, such as "
            f"{misfits[0]}. Use it with the variant that it was trained on."
        )
    if strangers:
        raise WeightsError(
            f"{name} is a LoRA of another variant: this network lacks {len(strangers)} of its {len(pairs)} layers, such as "
            f"{strangers[0]}. Use it with the variant that it was trained on."
        )
    return found


def _pairs(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, str]]:
    """Module -> names of its two matrices."""
    found: dict[str, tuple[str, str]] = {}
    for down, up in zip(DOWN, UP, strict=True):
        for key, shape in shapes.items():
            other = key.removesuffix(down) + up
            if key.endswith(down) and len(shape) >= 2 and len(shapes.get(other, ())) >= 2:
                found[key.removesuffix(down)] = (key, other)
    return found


def _target(module: str, weights: Mapping[str, tuple[int, ...]], flat: Mapping[str, str]) -> str | None:
    if module.startswith(FLAT_PREFIX):
        return flat.get(module.removeprefix(FLAT_PREFIX))
    for prefix in PREFIXES:
        if module.startswith(prefix) and (key := f"{module.removeprefix(prefix)}.weight") in weights:
            return key
    return None
