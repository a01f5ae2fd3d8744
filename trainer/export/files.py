"""The files that a run ends in: a flow network alone, together with all other parts, or a LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import FlowSpec, PartSpec
from mmaudio_core.weights.convert import check_target, write_family
from mmaudio_core.weights.detect import detect, read_spec, shapes_of
from mmaudio_core.weights.locate import KINDS, FoundFile, find_parts, fits, look_at
from mmaudio_core.weights.metadata import encode
from mmaudio_core.weights.parts import open_part
from mmaudio_core.weights.registry import PHRASES, licence_of
from mmaudio_core.weights.safetensors_file import write_safetensors

from ..config.folders import without_folders, without_folders_in
from ..config.load import parse_toml
from .weights import CONFIG, Weights

STATISTICS = ("latent_mean", "latent_std")
_DOWN, _UP, _ALPHA = ".lora.down", ".lora.up", ".lora.alpha"


def export(
    weights: Weights,
    run: Path,
    target: Path,
    dtype: torch.dtype | None = None,
    *,
    licence: str | None = None,
    family: Sequence[Path] | None = None,
    overwrite: bool = False,
) -> str:
    """Writes ``weights`` to the safetensors file ``target``; returns what it is, for a message.

    dtype: of the weights, None keeps float32; the latent statistics stay float32. licence: None takes the run's. family: files
    and folders to take the other parts from, so that one file holds all that generating needs. What a LoRA run trained is
    written as a LoRA.

    Raises:
        WeightsError: when the target cannot be written, a part is not found, or these are no weights of a flow network.
    """
    check_target(target, overwrite)
    values = {**weights.about, **_values(weights, run, licence)}
    lora = {name: tensor for name, tensor in weights.tensors.items() if ".lora." in name}
    network = {name: tensor for name, tensor in weights.tensors.items() if name not in lora}
    where = f"What {run} holds"
    detected = detect(network, where=where)
    spec = detected.spec
    if said := weights.about.get("spec"):  # choices that no shape shows
        spec = read_spec(detected.kind, shapes_of(network), said, where)
    if not isinstance(spec, FlowSpec):
        raise WeightsError(f"{run} holds {detected.phrase}; a run of the flow network belongs here.")
    values |= {"variant": spec.variant, "spec": spec.to_dict()}
    if lora:
        if family is not None:
            raise WeightsError(f"{run} trained a LoRA, which goes into no family file; export it alone, or merge it first.")
        tensors = _lora_tensors(lora, values["config"])
        write_safetensors(target, tensors, encode({**values, "kind": "lora"}), dtype=dtype)
        return f"a LoRA for {len(tensors) // 3} layers"
    tensors = _in_dtype(network, dtype)
    values["statistics"] = {name: [float(value) for value in network[name].flatten()] for name in STATISTICS}
    if family is None:
        write_safetensors(target, tensors, encode({**values, "kind": detected.kind}))
    else:
        parts, licences = _other_parts(spec, family, dtype)
        values["licences"] = {"flow": values["licence"], **licences}
        write_family({"flow": (spec, tensors), **parts}, target, values, overwrite=overwrite)
    return detected.phrase


def _values(weights: Weights, run: Path, licence: str | None) -> dict[str, Any]:
    path, said = run / CONFIG, weights.about.get("config", "")
    config = path.read_text(encoding="utf-8") if path.is_file() else said
    return {
        "source_name": run.resolve().name,
        "licence": str(weights.about.get("licence", "")) if licence is None else licence,
        "dataset": weights.about.get("dataset", ""),
        "step": weights.step,
        "ema": weights.sigma_rel,
        "config": without_folders(config) if isinstance(config, str) else without_folders_in(config),
    }


def _in_dtype(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    if dtype is None:
        return dict(tensors)
    return {name: t if name in STATISTICS or not t.is_floating_point() else t.to(dtype) for name, t in tensors.items()}


def _other_parts(
    flow: FlowSpec, sources: Sequence[Path], dtype: torch.dtype | None
) -> tuple[dict[str, tuple[PartSpec, Mapping[str, Tensor]]], dict[str, str]]:
    """Kind -> (configuration, tensors), and kind -> licence, of the first file that fits for each part but the flow network."""
    found: list[FoundFile] = []
    for source in sources:
        found += look_at(source) if source.is_file() else find_parts([source])
    parts: dict[str, tuple[PartSpec, Mapping[str, Tensor]]] = {}
    licences: dict[str, str] = {}
    for kind in KINDS[1:]:
        fitting = [item for item in found if item.kind == kind and fits(flow, item)]
        if not fitting:
            where = " or ".join(map(str, sources))
            raise WeightsError(f"{PHRASES[kind].capitalize()} that fits this flow network was not found in {where}.")
        part = open_part(fitting[0].path, kind)
        parts[kind] = (part.detected.spec, _in_dtype(part.tensors, dtype))
        licences[kind] = licence_of(part.values, kind)
    return parts, licences


def _lora_tensors(tensors: Mapping[str, Tensor], config: str | Mapping[str, Any]) -> dict[str, Tensor]:
    """In the spelling of LoRA files (``trainer/lora/file.py``); alpha from the checkpoint, else from the configuration."""
    table = (parse_toml(config) if isinstance(config, str) else config).get("lora", {})
    found: dict[str, Tensor] = {}
    for name, down in tensors.items():
        if not name.endswith(_DOWN):
            continue
        module = name.removesuffix(_DOWN)
        alpha = tensors.get(f"{module}{_ALPHA}")
        if alpha is None:
            alpha = torch.tensor(float(table.get("alpha", down.shape[0])))
        found[f"diffusion_model.{module}.lora_A.weight"] = down
        found[f"diffusion_model.{module}.lora_B.weight"] = tensors[f"{module}{_UP}"]
        found[f"diffusion_model.{module}.alpha"] = alpha
    return found
