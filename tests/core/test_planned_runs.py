"""The pipeline does as its plan of memory says."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import mmaudio_core
from mmaudio_core.errors import InputError
from mmaudio_core.pipeline.plan import Plan
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.pipeline.stages import Run

from .precision import needs

INPUTS: dict[str, Any] = {"prompt": "rain", "duration_s": 1.0, "settings": SampleSettings(2)}


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No system says how much memory is free."""
    monkeypatch.setattr("mmaudio_core.pipeline.planner.free_bytes", lambda device: None)


def tiny(**wish: Any) -> Any:
    return mmaudio_core.load("tiny", device="cpu", dtype="float32", **wish)


def test_a_run_is_planned_and_said_once(
    nothing_known: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    with caplog.at_level(logging.INFO, "mmaudio"):
        everything = model.generate(**INPUTS).audio.samples
    assert sum(message.startswith("Memory: all parts stay loaded") for message in caplog.messages) == 1
    assert set(model.parts._loaded) == {"clip text", "flow", "vae", "vocoder"}
    found: Plan = model._planner.now
    assert found.mode == "resident"

    # A byte less than all parts need: something has to go.
    tight = tiny(memory=found.peak_bytes - 1)
    assert torch.equal(tight.generate(**INPUTS).audio.samples, everything)
    assert tight._planner.now.mode == "staged"
    assert set(tight.parts._loaded) == set(tight._planner.now.kept)
    assert 0 < len(tight.parts._loaded) < 4

    # The device filled up meanwhile: what had stayed goes, and the run is tried all the same.
    monkeypatch.setattr("mmaudio_core.pipeline.planner.free_bytes", lambda device: 1)
    monkeypatch.setattr(type(model.parts), "releasable_bytes", lambda self: 0)
    model._planner.decide(Run(1.0, video=False))
    assert model._planner.now.mode == "chunked"
    assert model.parts._loaded == {}
    assert any("expect it to be slow or to fail" in message for message in caplog.messages)


def test_a_budget_below_the_least_stops_before_anything_is_loaded(nothing_known: None) -> None:
    model = tiny(memory=1000)
    with pytest.raises(InputError, match=r"memory budget of 0\.00 GB"):
        model.generate(**INPUTS)
    assert model.parts._loaded == {}


def test_parts_go_between_stages_as_planned(nothing_known: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every load nothing else is there, and what was released is gone."""
    model = tiny(memory="staged")
    there: list[set[str]] = []
    alive: list[weakref.ref] = []
    original = type(model.parts)._part

    def watched(self: Any, name: str, *args: Any, **options: Any) -> Any:
        there.append(set(self._loaded))
        assert all(ref() is None for ref in alive), "a part that was released is still in memory"
        module = original(self, name, *args, **options)
        alive.append(weakref.ref(next(module.parameters())))
        return module

    monkeypatch.setattr(type(model.parts), "_part", watched)
    frames = np.zeros((26, 40, 60, 3), np.uint8)
    model.generate(frames=frames, fps=25, prompt="rain", settings=INPUTS["settings"])
    assert there == [set()] * 6
    assert model.parts._loaded == {}


def test_smaller_pieces_give_the_same(nothing_known: None) -> None:
    small, usual = tiny(memory="chunked"), tiny()
    assert (small._planner.now.frames_per_chunk, small._planner.now.segments_per_chunk) == (1, 1)
    frames = np.random.default_rng(0).integers(0, 255, (42, 40, 60, 3), np.uint8)
    one, many = (model.encode_frames(model.read_frames(frames, 25)) for model in (small, usual))
    latents = [model.sample(one, one.duration_s, [0, 1], settings=INPUTS["settings"]).tokens for model in (small, usual)]
    for a, b in ((one.clip, many.clip), (one.sync, many.sync), latents):
        assert a is not None
        assert (a - b).abs().max() <= 1e-4 * a.abs().max()


def test_memory_in_use_is_not_taken_for_lost() -> None:
    """On a CPU weights that are views of their file count as free already; those that were converted do not."""
    needs(torch.float16)
    as_stored, converted = mmaudio_core.load("tiny", device="cpu", dtype="float16"), tiny()
    for model in (as_stored, converted):
        model.parts.flow()
    statistics = 2 * 20 * 2  # mean and std of the latents are stored in float32
    assert as_stored.parts.releasable_bytes() == statistics < as_stored.parts.loaded_bytes()["flow"]
    assert converted.parts.releasable_bytes() == converted.parts.loaded_bytes()["flow"] - 2 * statistics
