"""A LoRA multiplied out into a file of the whole flow network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.weights.convert import check_target
from mmaudio_core.weights.files import open_tensors
from mmaudio_core.weights.lora import LoRAPair, match_lora
from mmaudio_core.weights.metadata import encode_part
from mmaudio_core.weights.parts import Part, open_part
from mmaudio_core.weights.registry import licence_of
from mmaudio_core.weights.safetensors_file import write_safetensors

from .file import check_plain

_REPLACED = ("format", "kind", "spec", "variant", "parts", "source_name", "licence", "licences")


def merge_file(
    base: Path,
    lora: Path,
    target: Path,
    strength: float = 1.0,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes the flow network in ``base`` with ``lora`` times ``strength`` added to its weights; returns the layers changed.

    Names and number formats are those of ``base`` (a family file gives its flow network), and so are its licence and the rest
    of its metadata, under which ``merged`` lists what was added. The sums are made in float32.

    Raises:
        WeightsError: when ``base`` is no flow network of 16 or 32 bits, ``lora`` no LoRA of its variant, or ``target`` exists.
        InputError: for a strength that is no number.
    """
    if not abs(strength) < float("inf"):
        raise InputError(f"A strength of {strength} was given; a number such as 1.0 is needed.")
    check_target(target, overwrite, base)
    part = open_part(base, "flow")
    pairs = match_lora(lora, {name: tuple(tensor.shape) for name, tensor in part.tensors.items()})
    matrices = open_tensors(lora).tensors
    check_plain(lora, pairs, matrices)
    tensors = dict(part.tensors)
    for pair in pairs:
        weight = tensors[pair.target]
        if weight.dtype.itemsize < 2:
            raise WeightsError(f"{base} holds weights in 8 bits, too coarse to add a LoRA to; use the file it was made from.")
        tensors[pair.target] = (weight.float() + strength * _delta(pair, matrices, weight)).to(weight.dtype)
    write_safetensors(target, tensors, _metadata(part, lora, strength), release=part.file.release, progress=progress)
    return len(pairs)


def _delta(pair: LoRAPair, matrices: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    down, up = matrices[pair.down].float().flatten(1), matrices[pair.up].float().flatten(1)
    scale = float(matrices[pair.alpha]) / len(down) if pair.alpha in matrices else 1.0
    return (scale * (up @ down)).reshape(weight.shape)


def _metadata(part: Part, lora: Path, strength: float) -> dict[str, str]:
    kept: dict[str, Any] = {key: value for key, value in part.values.items() if key not in _REPLACED}
    merged = [*kept.pop("merged", []), {"lora": lora.name, "strength": strength}]
    licence = licence_of(part.values, "flow")
    found = part.detected
    return encode_part(
        found.spec, variant=found.variant, source_name=part.file.path.name, licence=licence, merged=merged, **kept
    )
