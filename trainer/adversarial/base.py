"""Files that a training starts from or listens through."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import PartSpec, VAESpec, VocoderSpec
from mmaudio_core.weights.build import load_part

Part = TypeVar("Part", bound=nn.Module)
Spec = TypeVar("Spec", VAESpec, VocoderSpec)


def load_base(path: str, part: type[Part], kind: type[Spec], audio: str) -> tuple[Part, Spec]:
    """The VAE or vocoder in a file, float32 on the CPU, weights raw as they are trained, in memory of their own.

    Raises:
        WeightsError: when the file is none, or of another format than ``audio``.
    """
    module: nn.Module
    spec: PartSpec
    module, spec = load_part(path, kind.kind, dtype=torch.float32, fold=False)
    if not isinstance(module, part) or not isinstance(spec, kind) or spec.audio.name != audio:
        found = spec.audio.name if isinstance(spec, (VAESpec, VocoderSpec)) else spec.kind
        raise WeightsError(f"{path} is a {kind.kind} of {found}, but model.audio is {audio}; name a file of that format.")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()  # training would write to the mapped file's pages
    return module, spec
