"""Which vocoder runs where: the module as it is written, or a faster one made from it."""

from __future__ import annotations

import torch

from ..kernels.keep import stamp
from ..kernels.snake import anti_aliased_snake
from .bigvgan import BigVGAN
from .fused import FusedBigVGAN
from .streamed import StreamedBigVGAN, streams


def fast_vocoder(module: BigVGAN) -> BigVGAN | FusedBigVGAN | StreamedBigVGAN:
    """For inference: streamed with packed weights on a CPU in float32, with fused activations where ``module.kernels`` has a
    kernel for them, else ``module`` itself. Made once, and anew when weights or kernels changed.
    """
    kernel = module.kernels.anti_aliased_snake
    if module.conv_pre.weight.dtype == torch.float32 and streams(module):
        return module.kept.get(stamp(module), lambda: StreamedBigVGAN(module))
    if kernel is not anti_aliased_snake:
        return module.kept.get((stamp(module), kernel, module.graphs), lambda: FusedBigVGAN(module, kernel, module.graphs))
    return module
