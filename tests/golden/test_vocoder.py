"""BigVGAN, with weight normalisation folded by our own loader."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.spec.audio import audio_for_mel_bins
from mmaudio_core.spec.model import VOCODERS, VocoderSpec
from mmaudio_core.vocoder.bigvgan import BigVGAN
from mmaudio_core.vocoder.choose import fast_vocoder
from mmaudio_core.weights.keymaps import normalise

from .drawing import Golden, draw, draw_input, each_golden, shapes_of

ONE_PASS = 1e-5


def vocoder_spec(meta: dict) -> VocoderSpec:
    spec = VOCODERS[audio_for_mel_bins(meta["mel_shape"][1]).name]
    spec = dataclasses.replace(spec, width=meta["upsample_initial_channel"])
    if config := meta.get("config"):
        dilations = {tuple(d) for d in config["resblock_dilation_sizes"]}
        assert len(dilations) == 1
        spec = dataclasses.replace(
            spec,
            rates=tuple(config["upsample_rates"]),
            kernels=tuple(config["upsample_kernel_sizes"]),
            block_kernels=tuple(config["resblock_kernel_sizes"]),
            block_dilations=dilations.pop(),
            final_bias=config["use_bias_at_final"],
            final_tanh=config["use_tanh_at_final"],
        )
    return spec


@torch.no_grad()
@each_golden("vocoder_*.safetensors", is_large=lambda meta: meta["upsample_initial_channel"] > 512)
def test_vocoder(path: Path) -> None:
    golden = Golden(path)
    spec = vocoder_spec(golden.meta)
    with torch.device("meta"):
        vocoder = BigVGAN(spec)
    published = {}
    for name, shape in shapes_of(vocoder).items():
        if name.endswith(".weight"):
            published[name + "_v"] = draw(golden.seed, name + "_v", shape)
            published[name + "_g"] = draw(golden.seed, name + "_g", (shape[0], 1, 1))
        else:
            published[name] = draw(golden.seed, name, shape)
    vocoder.load_state_dict(normalise(published, "vocoder"), assign=True)
    mel = draw_input(golden.seed, "mel", golden.meta["mel_shape"])
    golden.check("audio", vocoder(mel), ONE_PASS)
    fast: Any = fast_vocoder(vocoder)
    assert fast is not vocoder
    golden.check("audio", fast(mel), ONE_PASS)
