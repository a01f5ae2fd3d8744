"""What opens a residual block of the mel decoder, at its widths for 8 s."""

from __future__ import annotations

import torch

from mmaudio_core.kernels.pixel_norm import pixel_norm_silu
from mmaudio_core.spec.model import VAES

from .flow_shapes import random
from .timing import Row, bytes_of, measure, variants

LATENTS = {"16k": 250, "44k": 345}


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("pixel_norm", "pixel_norm_silu", pixel_norm_silu, device)
    result = []
    for name in ("44k",) if quick else LATENTS:
        width = VAES[name].width
        for channels, frames in ((4 * width, LATENTS[name]), (2 * width, 2 * LATENTS[name]), (width, 2 * LATENTS[name])):
            x = random(1, channels, frames, device=device, dtype=dtype)
            rows = x.transpose(1, 2).contiguous().transpose(1, 2)
            for layout, given in (("channel-first", x), ("time-major", rows)):
                result += measure(f"{name}, {channels} x {frames}, {layout}", functions, (given,), 3 * bytes_of(x), quick)
    return result
