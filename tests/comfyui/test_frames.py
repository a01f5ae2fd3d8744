"""Whatever the frame rate and the way in, the encoders see the same instants of the same scene."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.media.picking import FramePicker

from .graphs import Graph
from .server import Server

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(1200)]

RATES = (12.0, 16.0, 24.0, 25.0, 30.0, 60.0)
SECONDS = 4.0


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest cosine between tokens of the same instant."""
    count = min(a.shape[1], b.shape[1])
    return float(torch.nn.functional.cosine_similarity(a[:, :count], b[:, :count], dim=-1).min())


def source(graph: Graph, node: str, kind: str, fps: float) -> dict[str, object]:
    if kind == "images":
        return {"images": (node, 0), "fps": fps}
    return {"video": (graph.add("CreateVideo", images=(node, 0), fps=fps), 0)}


def test_features_agree_at_every_rate(server: Server) -> None:
    graph = Graph()
    encoders = (graph.ours("LoadEncoders"), 0)
    for fps in RATES:
        frames = graph.add("StandInVideoModel", fps=fps, frames=round(SECONDS * fps), size=96)
        for kind in ("images", "video"):
            node = graph.ours("ExtractFeatures", encoders=encoders, **source(graph, frames, kind, fps))
            graph.dump((node, 0), f"{kind}_{fps:g}")
    server.run(graph.prompt, timeout_s=900)
    features = {
        (kind, fps): torch.load(server.base / f"output/{kind}_{fps:g}.pt") for fps in RATES for kind in ("images", "video")
    }
    reference = features["images", 25.0]
    print("\nfps     duration_s  CLIP cosine  sync cosine  (smallest over tokens, against images at 25 fps)")
    for (kind, fps), got in features.items():
        clip, sync = (cosine(got[name], reference[name]) for name in ("clip", "sync"))
        print(f"{kind} {fps:g}: {got['duration_s']:.3f} {clip:.5f} {sync:.5f}")
        assert got["duration_s"] == SECONDS
        assert got["clip"].shape == reference["clip"].shape
        assert got["sync"].shape == reference["sync"].shape
        assert clip > 0.95  # at 12 fps a picture is up to 1/12 s from its instant, and this world's CLIP sees where things are
        assert sync > 0.99
        assert torch.equal(got["clip"], features["images", fps]["clip"]), "VIDEO and IMAGE + fps differ"


@pytest.mark.parametrize("fps", RATES)
def test_instants_are_exact(server: Server, fps: float) -> None:
    """The number of every picked frame, read back from its brightness, against the published walk over k / fps."""
    count = round(2.0 * fps)
    graph = Graph()
    encoders = (graph.ours("LoadEncoders"), 0)
    ramp = graph.add("StandInRamp", frames=count)
    for kind in ("images", "video"):
        graph.add("StandInInstants", encoders=encoders, name=f"instants_{kind}", **source(graph, ramp, kind, fps))
    server.run(graph.prompt)
    wanted: dict[str, list[int]] = {"clip": [], "sync": []}
    picker = FramePicker(None)
    for number in [*range(count), count]:  # the last frame stays until its own end
        picks = picker.feed(number / fps)
        shown = min(number, count - 1)
        wanted["clip"] += [shown] * picks.clip
        wanted["sync"] += [shown] * picks.sync
    for kind in ("images", "video"):
        got = torch.load(server.base / f"output/instants_{kind}.pt")
        assert got["duration_s"] == 2.0
        for name in ("clip", "sync"):
            numbers = got[name].round().int().tolist()
            assert numbers == wanted[name][: len(numbers)], f"{kind} at {fps} fps, {name}"
            assert len(numbers) == {"clip": 16, "sync": 50}[name]
