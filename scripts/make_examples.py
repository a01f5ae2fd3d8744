"""Writes the files that the shared workflows name: a drawn video, a sound with a fault, a LoRA for the embedded model.

    python -m scripts.make_examples COMFYUI_FOLDER

Run it in the pack's folder. It writes ``input/example.mp4``, ``input/example.flac`` and
``models/loras/mmaudio_example_lora.safetensors``; nothing is downloaded, and every pixel and sample is made up here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.weights.build import load_part

TINY = Path(__file__).resolve().parents[1] / "mmaudio_core" / "assets" / "tiny.safetensors"
LORA_NAME = "mmaudio_example_lora.safetensors"
WIDTH, HEIGHT, FPS, SECONDS, RATE_HZ = 640, 360, 25, 6, 44_100
FLOOR, RADIUS, BOUNCE_S, TOP = 285, 30, 0.8, 190
FAULT_S = (2.0, 4.0)
"""Where example.flac has a whistle that does not belong there."""


def scene() -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3): a ball that crosses a meadow, one bounce every 0.8 s."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    sky = np.stack([110 + y * 0.35, 165 + y * 0.22, 225 + y * 0.06], axis=-1)
    hills = y > 215 + 22 * np.sin(x / 95) + 10 * np.sin(x / 37)
    back = np.where(hills[..., None], (110, 150, 110), sky)
    back = np.where((y >= FLOOR)[..., None], (95, 130, 70), back)
    for k in range(FPS * SECONDS):
        t = k / FPS
        phase = t % BOUNCE_S / BOUNCE_S
        height = 4 * phase * (1 - phase) * TOP
        centre_x, centre_y = 60 + 520 * t / SECONDS, FLOOR - RADIUS - height + 12
        frame = back.copy()
        shade = 0.55 + 0.35 * height / TOP
        frame[((x - centre_x) / RADIUS) ** 2 + ((y - FLOOR - 14) / 7) ** 2 <= 1] *= shade
        ball = np.hypot(x - centre_x, y - centre_y) <= RADIUS
        light = np.clip(1.15 - np.hypot(x - centre_x + 10, y - centre_y + 12) / (2.4 * RADIUS), 0.3, 1.0)
        frame[ball] = (light[..., None] * (235, 80, 50))[ball]
        yield frame.clip(0, 255).astype(np.uint8)


def thuds() -> torch.Tensor:
    """(1, N): a dull blow at every bounce, the sound that example.mp4 brings along."""
    t = torch.arange(RATE_HZ * SECONDS) / RATE_HZ
    since = t % BOUNCE_S
    return (0.6 * torch.sin(2 * torch.pi * 70 * since) * torch.exp(-since * 18))[None]


def rain_with_a_fault() -> torch.Tensor:
    """(1, N): soft noise, with a whistle from 2 to 4 s."""
    generator = torch.Generator().manual_seed(1)
    t = torch.arange(RATE_HZ * SECONDS) / RATE_HZ
    rain = 0.05 * torch.randn(t.numel(), generator=generator) * (1 + 0.4 * torch.sin(2 * torch.pi * 0.7 * t))
    inside = (t >= FAULT_S[0]) & (t < FAULT_S[1])
    return (rain + 0.4 * inside * torch.sin(2 * torch.pi * 2400 * t))[None]


def lora() -> dict[str, torch.Tensor]:
    """A made-up LoRA of rank 4 on the attention of the embedded model, under the names that trainers write."""
    network, _ = load_part(TINY, "flow")
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("attn.qkv", "linear1")):
            down = torch.randn(4, module.in_features, generator=generator) / module.in_features**0.5
            tensors[f"diffusion_model.{name}.lora_A.weight"] = down
            tensors[f"diffusion_model.{name}.lora_B.weight"] = 0.5 * torch.randn(module.out_features, 4, generator=generator)
    return tensors


def write_examples(folder: Path) -> None:
    """Writes the three files below ``folder``, which ComfyUI reads ``input`` and ``models`` from."""
    inputs, loras = folder / "input", folder / "models" / "loras"
    inputs.mkdir(parents=True, exist_ok=True)
    loras.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        silent = write_silent_video(scene(), FPS, Path(temporary) / "silent.mp4")
        mux_audio(silent, (thuds(), RATE_HZ), inputs / "example.mp4")
    save_audio((rain_with_a_fault(), RATE_HZ), inputs / "example.flac")
    save_file(lora(), loras / LORA_NAME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="ComfyUI's folder, or its base folder where --base-directory is used")
    write_examples(parser.parse_args().folder)


if __name__ == "__main__":
    main()
