"""A small network that hears what was struck; its features and classes carry Fréchet distance and KL."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.audio import AUDIO_16K
from mmaudio_core.weights.safetensors_file import MappedTensors, read_header, write_safetensors
from mmaudio_core.weights.sniff import sniff

from ..world import MATERIALS
from .strikes import JITTER_FRAMES

KIND = "mmaudio material classifier"
WIDTHS = (24, 48, 64)
FEATURES = 64
_MEAN, _STD = -2.2, 0.8
"""About those of log10-mels of strikes."""


@dataclass(frozen=True)
class Training:
    """How a classifier came about: clips of the seeds 0 to ``clips`` - 1, ``seed`` for weights and order; and how good it is.

    accuracy: share of ``strikes`` strikes of held-out clips' true sound whose material it names.
    """

    seed: int
    clips: int
    steps: int
    strikes: int = 0
    accuracy: float = 0.0


class MaterialNet(nn.Module):
    """Log10-mel patches (B, 80, PATCH_FRAMES) -> logits (B, materials), features (B, FEATURES).

    Three convolutions of stride 2, mean over time, two linear maps. Which frequency rings says most, so frequency is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *WIDTHS)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in WIDTHS)
        self.features = nn.Linear(WIDTHS[-1] * (AUDIO_16K.mel_bins >> len(WIDTHS)), FEATURES)
        self.classes = nn.Linear(FEATURES, len(MATERIALS))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = ((mel - _MEAN) / _STD)[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.gelu(norm(conv(x)))
        features = F.gelu(self.features(x.mean(-1).flatten(1)))
        return self.classes(features), features


class Classifier:
    """A trained network with what is known of it."""

    def __init__(self, net: MaterialNet, training: Training) -> None:
        self.net, self.training = net.eval().requires_grad_(False), training

    @torch.no_grad()
    def judge(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """What ``mel_patches`` gives -> logits (strikes, materials), features (strikes, FEATURES)."""
        logits, features = self.net(patches[..., JITTER_FRAMES:-JITTER_FRAMES])
        return logits, features

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, whole or not at all.

        Raises:
            WeightsError: when it cannot be written.
        """
        said = {"kind": KIND, "materials": json.dumps(MATERIALS), "training": json.dumps(asdict(self.training))}
        write_safetensors(path, self.net.state_dict(), said)


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """The classifier that ``Classifier.save`` wrote.

    Raises:
        WeightsError: for any other file, or one of another version.
    """
    header = read_header(path) if sniff(Path(path)) == "safetensors" else None
    if header is None or header.metadata.get("kind") != KIND:
        raise WeightsError(f"{path} is no material classifier; give a file that mmaudio-train score --classifier wrote.")
    net = MaterialNet()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    if {name: e.shape for name, e in header.entries.items()} != shapes or _materials(header.metadata) != list(MATERIALS):
        raise WeightsError(f"The classifier {path} is of another version; delete it, and it is trained anew.")
    # Copied, so that the file may be replaced while the classifier is in use.
    net.load_state_dict({name: value.clone() for name, value in MappedTensors(path, header).items()})
    return Classifier(net, Training(**json.loads(header.metadata["training"])))


def _materials(metadata: dict[str, str]) -> list[str]:
    return list(json.loads(metadata.get("materials", "[]")))
