"""The vocoder's anti-aliased snake at every width of BigVGAN for 8 s, in both memory layouts."""

from __future__ import annotations

import torch
from torch import Tensor

from mmaudio_core.kernels.snake import anti_aliased_snake
from mmaudio_core.spec.model import VOCODERS
from mmaudio_core.vocoder.activations import BETA_FLOOR, AntiAliasedSnake
from mmaudio_core.vocoder.filters import kaiser_sinc

from .flow_shapes import random
from .timing import Row, bytes_of, measure, variants

FRAMES = {"16k": 500, "44k": 690}
QUICK_SAMPLES = 2000


def module(x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> Tensor:
    """The vocoder's own module, with these parameters."""
    own = AntiAliasedSnake(x.shape[1]).to(x.device)
    own.act.alpha.data, own.act.beta.data, own.filter = alpha.log(), (1 / inverse_beta - BETA_FLOOR).log(), taps
    return own(x)


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("snake", "anti_aliased_snake", anti_aliased_snake, device) | {"module": module}
    taps = kaiser_sinc().to(device)
    result = []
    for name in ("44k",) if quick or device == "cpu" else FRAMES:
        spec, samples = VOCODERS[name], FRAMES[name]
        for stage, rate in enumerate(spec.rates):
            channels, samples = spec.width >> (stage + 1), samples * rate
            shown = min(samples, QUICK_SAMPLES) if quick or device == "cpu" else samples
            alpha, inverse_beta = (random(channels, device=device, dtype=torch.float32, seed=i).exp() for i in (1, 2))
            x = random(1, channels, shown, device=device, dtype=dtype)
            rows = x.transpose(1, 2).contiguous().transpose(1, 2)
            for layout, given in (("channel-first", x), ("time-major", rows)):
                case = f"{name}, {channels} x {shown}, {layout}"
                result += measure(case, functions, (given, alpha, inverse_beta, taps), 2 * bytes_of(x), quick)
    return result
