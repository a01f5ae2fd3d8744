"""The modules of one model, each loaded when a stage first asks for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from ..errors import WeightsError
from ..spec.model import CLIPSpec, FlowSpec, PartSpec, SynchformerSpec
from ..weights.build import load_part
from ..weights.parts import open_raw_part
from .accelerate import Accelerator
from .files import ModelFiles
from .precision import Precision
from .report import Report

if TYPE_CHECKING:
    from ..autoencoder.vae import VAE
    from ..features.clip import CLIPEncoder
    from ..features.synchformer import SynchformerVisual
    from ..transformer.model import FlowNetwork
    from ..vocoder.bigvgan import BigVGAN


class Parts:
    """Loads on demand and keeps what it loaded, so that text-to-audio never touches the video towers.

    ``release`` lets modules go again; the next use loads them anew. Specs come from the files' lists of tensors, without
    loading anything. The VAE has no encoder here: nothing in the pipeline encodes sound.
    """

    def __init__(
        self,
        files: ModelFiles,
        device: torch.device,
        precision: Precision,
        report: Report,
        progress: Callable[[str, int, int], None] | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        self._accelerator = accelerator or Accelerator()
        self.files, self.device, self.precision, self.report = files, device, precision, report
        self._progress = progress
        self._loaded: dict[str, Any] = {}
        self._specs: dict[str, PartSpec] = {}

    @property
    def flow_spec(self) -> FlowSpec:
        return cast("FlowSpec", self._spec("flow"))

    @property
    def clip_spec(self) -> CLIPSpec:
        return cast("CLIPSpec", self._spec("clip"))

    @property
    def synchformer_spec(self) -> SynchformerSpec:
        return cast("SynchformerSpec", self._spec("synchformer"))

    def flow(self) -> FlowNetwork:
        net = cast("FlowNetwork", self._part("flow", "flow"))
        net.t_embed.published_half_precision = self.precision.published_time_features
        return net

    def vae(self) -> VAE:
        return self._fitting(cast("VAE", self._part("vae", "vae", encoder=False)), "VAE")

    def vocoder(self) -> BigVGAN:
        return self._fitting(cast("BigVGAN", self._part("vocoder", "vocoder")), "vocoder")

    def synchformer(self) -> SynchformerVisual:
        return cast("SynchformerVisual", self._part("synchformer", "synchformer"))

    def clip_image(self) -> CLIPEncoder:
        return cast("CLIPEncoder", self._part("clip image", "clip", text=False))

    def clip_text(self) -> CLIPEncoder:
        return cast("CLIPEncoder", self._part("clip text", "clip", image=False))

    def specs(self, kinds: Iterable[str]) -> dict[str, PartSpec]:
        """Kind -> spec; nothing is loaded."""
        return {kind: self._spec(kind) for kind in kinds}

    def loaded_bytes(self) -> dict[str, int]:
        """The parts that are loaded, with the bytes of their weights."""
        return {name: sum(value.nbytes for value in _weights(module)) for name, module in self._loaded.items()}

    def releasable_bytes(self) -> int:
        """What the system would call free again without the parts: views of a mapped file count as free as it is."""
        return sum(
            value.nbytes
            for module in self._loaded.values()
            for value in _weights(module)
            if self.device.type != "cpu" or value.untyped_storage().nbytes() == value.nbytes
        )

    def keep_only(self, names: Iterable[str]) -> None:
        """Forgets all modules but those of ``names``."""
        if gone := set(self._loaded).difference(names):
            self.release(*gone)

    def release(self, *names: str) -> None:
        """Forgets the modules of ``names`` ("flow", "vae", "vocoder", "synchformer", "clip image", "clip text"), or all."""
        gone = [self._loaded.pop(name) for name in names or tuple(self._loaded) if name in self._loaded]
        alive = [weakref.ref(module) for module in gone]
        gone.clear()
        if any(module() is not None for module in alive):
            gc.collect()  # what a module keeps for its fast path may refer back to it
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def _spec(self, kind: str) -> PartSpec:
        if kind not in self._specs:
            with self.report.stage("load"):
                self._specs[kind] = open_raw_part(self.files.paths[kind], kind).detected.spec
        return self._specs[kind]

    def _part(self, name: str, kind: str, **options: Any) -> Any:
        if name not in self._loaded:
            options["progress"] = None if self._progress is None else partial(self._progress, f"load {name}")
            options |= {"dtype": self.precision.of(kind), "storage": self.precision.storage_of(kind)}
            with self.report.stage("load"):
                part, _ = load_part(self.files.paths[kind], kind, device=self.device, **options)
                self._accelerator.equip(part, self.device)
                self._loaded[name] = part
        return self._loaded[name]

    def _fitting(self, module: Any, what: str) -> Any:
        wanted, got = self.flow_spec.audio, module.spec.audio
        if got != wanted:
            raise WeightsError(
                f"The {what} is a {got.name} one and the flow network needs {wanted.name}; use files of one rate."
            )
        return module


def _weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return list(module.state_dict(keep_vars=True).values())
