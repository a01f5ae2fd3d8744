"""A small pack that stands for what lies around ours in a graph: a video model, made-up features, and looks inside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import folder_paths
import numpy as np
import torch


def ours(module):
    """A module of our pack as the host loaded it."""
    return next(value for name, value in sys.modules.items() if name.endswith(f"mmaudio-graph.{module}"))


def scene(fps, duration_s, size=96):
    """Frames (N, H, W, 3) of a moving bright square over a slowly changing ground, as a function of time alone."""
    times = np.arange(round(duration_s * fps)) / fps
    y, x = np.mgrid[0:size, 0:size] / size
    frames = []
    for t in times:
        cx, cy = 0.5 + 0.3 * np.cos(0.8 * t), 0.5 + 0.3 * np.sin(0.8 * t)
        square = np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / 0.02))
        ground = 0.3 + 0.2 * np.sin(2 * np.pi * (x + 0.1 * t))
        frames.append(np.stack([np.clip(ground + 0.6 * square, 0, 1), ground, 0.5 * square + 0.2], axis=-1))
    return torch.from_numpy(np.stack(frames).astype(np.float32))


class StandInVideoModel:
    """What a video model's VAE Decode gives: frames as an IMAGE batch, without a frame rate."""

    @classmethod
    def INPUT_TYPES(cls):
        number = ("FLOAT", {"default": 16.0})
        return {
            "required": {"fps": number, "frames": ("INT", {"default": 81, "max": 100000}), "size": ("INT", {"default": 96})}
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self, fps, frames, size):
        return (scene(fps, frames / fps, size),)


class StandInNoFrames:
    """An IMAGE batch of no frames."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self):
        return (torch.zeros(0, 8, 8, 3),)


class StandInConditioning:
    """Made-up features of the published widths as CONDITIONING, from a seed."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "seed": ("INT", {"default": 0}), "duration_s": ("FLOAT", {"default": 2.0})}}

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self, model, seed, duration_s):
        spec = model.model.diffusion_model.spec
        lengths = ours("mmaudio_core.spec.timing").sequence_lengths(duration_s, spec.audio)
        generator = torch.Generator().manual_seed(seed)

        def rows(tokens, width):
            return torch.nn.functional.normalize(torch.randn(1, tokens, width, generator=generator), dim=-1)

        features = ours("mmaudio_core.types").Features
        values = {
            "clip": rows(lengths.clip, spec.clip_dim),
            "sync": rows(lengths.sync, spec.sync_dim),
            "text": rows(spec.text_tokens, spec.text_dim),
        }
        against = rows(spec.text_tokens, spec.text_dim)
        pack = ours("nodes.host.conditioning").pack
        return (
            pack(features(**values, duration_s=duration_s), spec.text_tokens, spec.text_dim),
            pack(features(text=against, duration_s=duration_s), spec.text_tokens, spec.text_dim),
        )


class StandInDump:
    """Writes whatever arrives to output/NAME.pt: features, latents, sounds, sigmas."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*", {}), "name": ("STRING", {"default": "dump"})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self, value, name):
        if hasattr(value, "__dataclass_fields__"):
            value = {key: getattr(value, key) for key in value.__dataclass_fields__}
        if isinstance(value, dict):
            value = {key: item for key, item in value.items() if isinstance(item, (torch.Tensor, int, float, str, type(None)))}
        torch.save(value, Path(folder_paths.get_output_directory()) / f"{name}.pt")
        return {"ui": {"text": [name]}}


class StandInInstants:
    """The frames that our nodes pick, as the mean brightness of each, for a VIDEO or for images with fps."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"encoders": ("MMAUDIO_ENCODERS",), "name": ("STRING", {})},
            "optional": {"video": ("VIDEO",), "images": ("IMAGE",), "fps": ("FLOAT", {"default": 0.0})},
        }

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self, encoders, name, video=None, images=None, fps=0.0):
        frames = ours("nodes.encode").visual_frames(encoders, video, images, fps, 0.0, 0.0, None)
        values = {"clip": frames.clip.float().mean((1, 2, 3)), "sync": frames.sync.float().mean((1, 2, 3))}
        torch.save({**values, "duration_s": frames.duration_s}, Path(folder_paths.get_output_directory()) / f"{name}.pt")
        return {"ui": {"text": [name]}}


class StandInRamp:
    """Frames whose brightness is their number: frame k is k / 255 grey."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"frames": ("INT", {"default": 40, "max": 255})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self, frames):
        levels = torch.arange(frames, dtype=torch.float32) / 255
        return (levels[:, None, None, None].expand(-1, 32, 32, 3).contiguous(),)


class StandInProcess:
    """The server's own memory in MiB and the number of models that it holds, asked anew every time."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self):
        import gc

        import comfy.model_management

        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return {"ui": {"text": [str(resident), str(len(comfy.model_management.current_loaded_models))]}}


class StandInFull:
    """A model whose first evaluation finds the memory full."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"
    CATEGORY = "stand-in"

    def run(self, model):
        full = model.clone()

        def attention(*_, **__):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        full.model_options.setdefault("transformer_options", {})["optimized_attention_override"] = attention
        return (full,)


_CLASSES = [value for name, value in list(globals().items()) if name.startswith("StandIn")]
NODE_CLASS_MAPPINGS = {value.__name__: value for value in _CLASSES}
