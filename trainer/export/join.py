"""Parts of several files in one, with a flow network that is not trained yet: what extraction needs to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.spec.model import FlowSpec, PartSpec
from mmaudio_core.weights.build import build_module
from mmaudio_core.weights.convert import write_family
from mmaudio_core.weights.locate import KINDS, look_at
from mmaudio_core.weights.parts import open_part
from mmaudio_core.weights.registry import licence_of


def join(sources: Sequence[Path], target: Path, flow: FlowSpec, overwrite: bool = False) -> list[str]:
    """Writes the parts of ``sources``, of each kind the first, and an untrained flow network of ``flow`` into ``target``.

    Returns the kinds that came from files.

    Raises:
        InputError: a source that does not exist.
        WeightsError: a source that is no part of MMAudio, or a target that cannot be written.
    """
    parts: dict[str, tuple[PartSpec, Mapping[str, Tensor]]] = {}
    licences: dict[str, str] = {}
    for source in sources:
        if not source.is_file():
            raise InputError(f"There is no file {source} to take a part from.")
        for item in look_at(source):
            if item.kind in KINDS[1:] and item.kind not in parts:
                part = open_part(source, item.kind)
                parts[item.kind] = (part.detected.spec, part.tensors)
                licences[item.kind] = licence_of(part.values, item.kind)
    torch.manual_seed(0)
    extra = {"licences": licences, "trained": False}
    write_family({"flow": (flow, build_module(flow).state_dict()), **parts}, target, extra, overwrite=overwrite)
    return sorted(parts)
