"""LoRAs in ComfyUI's loras folder."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from ...mmaudio_core.errors import WeightsError
from ...mmaudio_core.weights.lora import check_lora, looks_like_lora
from .folders import stamp

log = logging.getLogger("mmaudio")

FOLDER = "loras"
MAX_REMEMBERED = 8192


@functools.lru_cache(maxsize=MAX_REMEMBERED)
def _is_ours(path: Path, modified_ns: int, size: int) -> bool:
    return looks_like_lora(path)


def lora_names() -> list[str]:
    """The LoRAs of MMAudio among the host's, by their headers; [""] when there is none, since a list may not be empty."""
    import folder_paths

    names = []
    try:
        for name in folder_paths.get_filename_list(FOLDER):
            path = folder_paths.get_full_path(FOLDER, name)
            if path and name.lower().endswith(".safetensors"):
                status = Path(path).stat()
                if _is_ours(Path(path), status.st_mtime_ns, status.st_size):
                    names.append(name)
    except Exception:  # a list in a menu must never keep the pack from loading
        log.exception("The LoRA folder could not be searched.")
    return names or [""]


def lora_stamp(name: str | None) -> str:
    """What tells the LoRA from a later one under the same name; "" where there is none."""
    import folder_paths

    path = folder_paths.get_full_path(FOLDER, name) if name else None
    return stamp(Path(path)) if path else ""


def with_lora(model: Any, name: str, strength: float) -> Any:
    """A copy of the MODEL with the LoRA patched in at ``strength``.

    Raises:
        WeightsError: when there is no such file, or it is of another model.
        InputError: when the MODEL is no MMAudio.
    """
    import comfy.lora
    import comfy.utils
    import folder_paths

    from .native_model import flow_of

    network = flow_of(model)
    path = folder_paths.get_full_path(FOLDER, name) if name else None
    if path is None:
        raise WeightsError(f"There is no LoRA {name!r} in models/{FOLDER}; put a LoRA trained on MMAudio there and choose it.")
    layers = check_lora(path, {key: tuple(value.shape) for key, value in network.state_dict().items()})
    if strength == 0:
        return model
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.utils.load_torch_file(path, safe_load=True), keys)
    patched = model.clone()
    taken = patched.add_patches(patches, strength)
    if len(taken) < layers:
        raise WeightsError(f"Of the {layers} layers of the LoRA {name} this ComfyUI applied {len(taken)}; save it anew.")
    log.info("LoRA %s: %d layers at strength %g.", name, layers, strength)
    return patched
