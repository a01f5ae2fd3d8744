"""LoRA files to patches, for names that are those of the weights."""

from __future__ import annotations

from typing import Any

ENDINGS = ((".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight"))


def model_lora_keys_unet(model, key_map=None) -> dict[str, str]:
    key_map = {} if key_map is None else key_map
    for key in model.state_dict():
        if key.startswith("diffusion_model.") and key.endswith(".weight"):
            name = key.removesuffix(".weight")
            key_map[name] = key
            key_map["lora_unet_" + name.removeprefix("diffusion_model.").replace(".", "_")] = key
    return key_map


def load_lora(lora, to_load, log_missing=True) -> dict[str, Any]:
    patches = {}
    for name, key in to_load.items():
        for down, up in ENDINGS:
            if name + down in lora:
                alpha = lora.get(f"{name}.alpha")
                scale = 1.0 if alpha is None else float(alpha) / lora[name + down].shape[0]
                patches[key] = (lora[name + up], lora[name + down], scale)
    return patches
