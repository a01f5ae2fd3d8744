"""What the fast paths of CLIP and Synchformer keep: weights that change are seen, and graphs are made once."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.kernels.graphs import Graphed
from mmaudio_core.layers.float8 import keep_in_float8_
from mmaudio_core.weights.fp8 import converts_float8

from .test_fast_encoders import clip, pixels, relative, synchformer


def changes(module: Any, weight: Callable[[], Tensor]) -> Iterator[str]:
    """Changes the weights in every way that there is."""
    yield "nothing"
    with torch.no_grad():
        weight().mul_(1.5)
    yield "in place"
    other = {name: value * 0.9 for name, value in module.state_dict().items()}
    module.load_state_dict(other)
    yield "loaded"
    module.load_state_dict({name: value * 1.1 for name, value in other.items()}, assign=True)
    yield "assigned"
    weight().data = weight().data * 1.2
    yield "data"
    module.float()
    yield "another dtype"


def test_changed_weights_are_seen() -> None:
    encoder, frames = clip(), pixels(2, 45)
    outs = []
    for how in changes(encoder, lambda: encoder.visual.transformer.resblocks[0].mlp.c_fc.weight):
        outs.append(encoder.encode_image(frames))
        assert relative(outs[-1], encoder.encode_image(frames, plain=True)) < 1e-5, how
    assert all(relative(a, b) > 1e-4 for a, b in zip(outs[1:5], outs, strict=False))
    tower, video, outs = synchformer(), pixels(24, 24), []
    for how in changes(tower, lambda: tower.spatial_attn_agg.self_attn.in_proj_weight):
        outs.append(tower.encode(video))
        assert relative(outs[-1], tower.encode(video, plain=True)) < 1e-5, how
    assert all(relative(a, b) > 1e-4 for a, b in zip(outs[1:5], outs, strict=False))
    assert encoder.fast_image() is encoder.fast_image()
    assert tower.fast() is tower.fast()


def test_what_is_moved_leaves_nothing_behind_but_texts() -> None:
    encoder, tower = clip(text=True), synchformer()
    encoder.graphs = tower.graphs = True  # made at the third call only
    frames, moving = pixels(2, encoder.spec.image_size), pixels(16, tower.spec.image_size)

    def outs() -> tuple[Tensor, ...]:
        return encoder.encode_image(frames), encoder.encode_text(["rain"]), tower.encode(moving)

    before = outs()
    graphed = [keep._made for keep in (encoder._graphed, encoder._graphed_text, tower._graphed)]
    assert all(isinstance(made, Graphed) for made in graphed)
    kept = [weakref.ref(made) for made in (encoder.fast_image(), tower.fast(), *graphed)]
    graphed.clear()
    for module in (encoder, tower):
        module.to(torch.device("cpu"))
    gc.collect()
    assert [ref() for ref in kept] == [None] * 5
    assert encoder.remembers(["rain"])
    assert all(torch.equal(a, b) for a, b in zip(outs(), before, strict=True))


def test_copies_begin_anew_and_nothing_keeps_a_module_alive() -> None:
    encoder, tower = clip(dtype=torch.float32), synchformer(dtype=torch.float32)
    encoder.encode_image(pixels(2, 45))
    tower.encode(pixels(16, 24))
    twins = copy.deepcopy(encoder), copy.deepcopy(tower)
    assert twins[0].fast_image() is not encoder.fast_image()
    assert twins[1].fast() is not tower.fast()
    gone = [weakref.ref(m) for m in (encoder, tower, *twins)]
    gc.collect()
    gc.disable()
    try:
        del encoder, tower, twins
        assert [ref() for ref in gone] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.skipif(not converts_float8(torch.device("cpu")), reason="this torch does not convert float8 numbers")
def test_weights_in_float8_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, tower = clip(dtype=torch.float32), synchformer(dtype=torch.float32)
    for module in (encoder, tower):
        assert len(keep_in_float8_(module, torch.float32, 1000)) > 10
    for name in ("fast_clip", "fast_synchformer"):  # a packed copy would be wide again
        monkeypatch.setattr(f"mmaudio_core.features.{name}.has_room", lambda *_: pytest.fail("asked for room"))
    frames, video = pixels(2, 45), pixels(16, 24)
    assert relative(encoder.encode_image(frames), encoder.encode_image(frames, plain=True)) < 1e-5
    assert relative(tower.encode(video), tower.encode(video, plain=True)) < 1e-5


def test_graphs_are_made_once_for_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Recorded:
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            self.function, self.calls = function, 0
            made.append(self)

        def __call__(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.function(x)

    for module in ("clip", "synchformer"):
        monkeypatch.setattr(f"mmaudio_core.features.{module}.Graphed", Recorded)
    encoder, tower = clip(text=True), synchformer()
    frames, moving = pixels(5, encoder.spec.image_size), pixels(32, tower.spec.image_size)
    wanted = encoder.encode_image(frames, 2), encoder.encode_text(["rain"]), tower.encode(moving, 1)
    assert not made
    encoder.graphs = tower.graphs = True
    encoder._texts = type(encoder._texts)()
    for _ in range(2):
        got = encoder.encode_image(frames, 2), encoder.encode_text(["rain"]), tower.encode(moving, 1)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert [m.calls for m in made] == [6, 1, 6]
    encoder.visual.proj.mul_(2)
    encoder.encode_image(frames, 5)
    assert len(made) == 4
