"""Models with weights that are patched while they are placed; the last patcher placed wins, as with a host's clones."""

from __future__ import annotations

from typing import Any

import torch


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False) -> None:
        model.device = offload_device
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.patches: dict[str, list[Any]] = {}

    def clone(self) -> ModelPatcher:
        copy = ModelPatcher(self.model, self.load_device, self.offload_device)
        copy.patches = {key: list(patches) for key, patches in self.patches.items()}
        return copy

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0) -> list[str]:
        own = self.model.state_dict()
        taken = [key for key in patches if key in own]
        for key in taken:
            self.patches.setdefault(key, []).append((strength_patch, patches[key]))
        return taken

    @torch.inference_mode()
    def place(self) -> None:
        weights = dict(self.model.named_parameters())
        for key, original in self.model.__dict__.pop("originals", {}).items():
            weights[key].data = original
        self.model.__dict__["originals"] = {key: weights[key].data for key in self.patches}
        for key, patches in self.patches.items():
            for strength, (up, down, scale) in patches:
                change = (up.flatten(1).float() @ down.flatten(1).float()).reshape(weights[key].shape)
                weights[key].data = weights[key].data + strength * scale * change
