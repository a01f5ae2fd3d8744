"""CLIP and Synchformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmaudio_core.features.clip import CLIPEncoder, tokenize
from mmaudio_core.features.synchformer import SynchformerVisual
from mmaudio_core.features.synchformer_full import Synchformer, offset_grid
from mmaudio_core.spec.model import CLIPSpec, SynchformerSpec

from .drawing import Golden, draw_formula, draw_input, each_golden, load_drawn

ONE_PASS = 1e-5


@torch.no_grad()
@each_golden("synchformer_visual*.safetensors")
def test_synchformer_visual(path: Path) -> None:
    golden = Golden(path)
    tower = load_drawn(lambda: SynchformerVisual(SynchformerSpec()), golden.seed, prefix="vfeat_extractor.")
    videos = draw_formula(golden.seed, golden.meta["video_input"], golden.meta["video_shape"])
    for plain in (False, True):
        features = torch.cat([tower.encode(video, segments_per_chunk=1, plain=plain) for video in videos])
        golden.check("features", features, ONE_PASS)


@torch.no_grad()
@each_golden("synchformer_compare*.safetensors", is_large=lambda meta: True)
def test_synchformer_compare(path: Path) -> None:
    golden = Golden(path)
    meta = golden.meta
    model = load_drawn(Synchformer, golden.seed)
    visual = draw_input(golden.seed, "visual_features", meta["visual_shape"])
    audio = draw_input(golden.seed, "audio_features", meta["audio_shape"])
    golden.check("logits", model.compare(visual, audio), ONE_PASS)
    golden.check("audio_features", model.afeat_extractor(draw_formula(golden.seed, meta["mel_input"])), ONE_PASS)
    golden.check("grid", offset_grid(), ONE_PASS)


def clip_spec(config: dict[str, Any]) -> CLIPSpec:
    vision, text = config["vision_cfg"], config["text_cfg"]
    return CLIPSpec(
        embed_dim=config["embed_dim"],
        image_size=vision["image_size"],
        vision_layers=vision["layers"],
        vision_width=vision["width"],
        vision_head_width=vision["head_width"],
        patch=vision["patch_size"],
        context_length=text["context_length"],
        vocab_size=text["vocab_size"],
        text_width=text["width"],
        text_heads=text["heads"],
        text_layers=text["layers"],
        quick_gelu=config["quick_gelu"],
    )


@each_golden("clip_*.safetensors")
def test_clip(path: Path) -> None:
    golden = Golden(path)
    spec = clip_spec(golden.meta["config"])
    encoder = load_drawn(lambda: CLIPEncoder(spec), golden.seed)
    texts = golden.meta["texts"]
    assert torch.equal(tokenize(texts, spec.context_length).float(), golden["tokens"])
    size = spec.image_size
    images = draw_input(golden.seed, "image", (golden["image"].shape[0], 3, size, size))
    for plain in (False, True):
        golden.check("text", encoder.encode_text(texts, plain=plain), ONE_PASS)
        golden.check("image", encoder.encode_image(images, plain=plain)[0], ONE_PASS)
