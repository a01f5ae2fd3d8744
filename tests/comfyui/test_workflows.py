"""Every shared workflow in the real ComfyUI: over HTTP, and in its own page by the page's own Run button."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from scripts.make_examples import write_examples

from .browser import drive, find_browser
from .server import PACK, ROOT, Server

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(1200)]

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
PAGE_ONLY = ("audioUI", "upload", "video-preview")
"""What the page sends besides inputs: players and buttons."""
RATE_HZ = 16_000
"""Of the embedded model."""


@dataclass(frozen=True)
class Expected:
    """What a workflow leaves: seconds, frames of each video, and how many sounds in how many files."""

    seconds: float
    frames: int | None = None
    sounds: int = 0
    rates_hz: tuple[int, ...] = (RATE_HZ,)


EXPECTED = {
    "video_to_audio": Expected(6.0, 150),
    "text_to_audio": Expected(8.0, sounds=1),
    "all_in_one": Expected(6.0, 150, sounds=1),
    "after_video_generation": Expected(81 / 16, 81),
    # ComfyUI's own VAE Decode Audio calls every sound 44.1 kHz in older versions, so the VAE hands it one of that rate.
    "ksampler_lora": Expected(8.0, sounds=1, rates_hz=(RATE_HZ, 44_100)),
    "five_takes": Expected(6.0, 150, sounds=5),
    "repair_two_seconds": Expected(6.0, sounds=1),
    "native_custom_sampling": Expected(6.0, 150),
}


@pytest.fixture(scope="module")
def gallery(comfy: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the files that the workflows name, and no pack but ours."""
    base = tmp_path_factory.mktemp("workflows")
    write_examples(base)
    started = Server(*comfy, base, packs={PACK: ROOT}).start()
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def page() -> None:
    """Skips, saying why, where no browser can be driven."""
    if why := find_browser():
        pytest.skip(why)


def read(name: str) -> Any:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def inputs_of(prompt: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in two prompts: types and inputs, without seeds and what the page adds for itself."""
    skipped = (*PAGE_ONLY, "seed")
    return {
        node_id: (node["class_type"], {key: value for key, value in node["inputs"].items() if key not in skipped})
        for node_id, node in prompt.items()
    }


def saved(outputs: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The files that were saved for good, of all nodes' entries under ``key``."""
    return [entry for output in outputs.values() for entry in (output or {}).get(key, []) if entry["type"] == "output"]


def decoded_sound(path: Path) -> tuple[np.ndarray, int]:
    """(samples (C, N), rate in Hz) of a file's first sound track."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        layout = container.streams.audio[0].codec_context
        rate_hz, planar = layout.sample_rate, layout.format.is_planar
        channels = layout.layout.nb_channels
    joined = np.concatenate(frames, axis=1)
    samples = joined if planar else joined.reshape(-1, channels).T
    return samples.astype(np.float64) / (np.iinfo(samples.dtype).max if samples.dtype.kind == "i" else 1.0), rate_hz


def count_frames(path: Path) -> tuple[int, float]:
    """(number of frames, seconds) of a video file."""
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
        return count, count / float(container.streams.video[0].average_rate)


def check_sound(path: Path, expected: Expected) -> None:
    samples, rate_hz = decoded_sound(path)
    assert rate_hz in expected.rates_hz, f"{path.name}: {rate_hz} Hz"
    assert samples.shape[1] / rate_hz == pytest.approx(expected.seconds, abs=0.07), path.name
    assert np.isfinite(samples).all()
    assert np.sqrt((samples**2).mean()) > 1e-4, f"{path.name} is silent"


def check_files(server: Server, outputs: dict[str, Any], expected: Expected) -> None:
    """The saved files decode to what was expected."""
    videos, sounds = saved(outputs, "images"), saved(outputs, "audio")
    assert len(videos) == (expected.frames is not None)
    assert len(sounds) == expected.sounds
    for entry in sounds:
        check_sound(server.file(entry), expected)
    for entry in videos:
        path = server.file(entry)
        count, seconds = count_frames(path)
        assert count == expected.frames
        assert seconds == pytest.approx(expected.seconds, abs=1e-3)
        check_sound(path, expected)


def test_every_workflow_is_expected() -> None:
    assert set(EXPECTED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_runs_over_http(gallery: Server, name: str) -> None:
    prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    check_files(gallery, gallery.run(prompt), EXPECTED[name])


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("name", NAMES)
def test_runs_in_the_page(gallery: Server, name: str) -> None:
    gallery.post("/free", {"free_memory": True})  # so that every node runs, and shows what it made
    loaded, run = drive(gallery.url, [{"do": "load", "workflow": read(name), "name": name}, {"do": "run"}])
    assert "error" not in loaded, loaded
    assert loaded["missing"] == []
    prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    check_prompt(inputs_of(loaded["prompt"]), inputs_of(prompt))
    assert "error" not in run, run
    assert run["status"] == "execution_success", run["detail"]
    check_files(gallery, {node: entry["output"] for node, entry in run["outputs"].items()}, EXPECTED[name])
    check_shown(run["shown"], EXPECTED[name])


def check_prompt(drawn: dict[str, Any], shipped: dict[str, Any]) -> None:
    """The page's prompt is the shipped one; newer versions of the host's own nodes may have more inputs."""
    for node_id, (kind, inputs) in drawn.items():
        if not kind.startswith("MMAudioGraph"):
            more = set(inputs) - set(shipped.get(node_id, ("", {}))[1])
            drawn[node_id] = (kind, {key: value for key, value in inputs.items() if key not in more})
    assert drawn == shipped


def check_shown(shown: dict[str, Any], expected: Expected) -> None:
    """Our nodes that make sound show its spectrogram and a player that plays it; so do the host's nodes that save."""
    players = {"MMAudioGraphDecode": "audio", "MMAudioGraphGenerate": "audio", "SaveAudio": "audio", "SaveVideo": "video"}
    seen = [state for state in shown.values() if state["type"] in players]
    assert seen
    for state in seen:
        kind = players[state["type"]]
        player = next((player for player in state["players"] if player["kind"] == kind), None)
        assert player is not None, f"{state['type']} shows no {kind} player"
        assert player["fault"] is None, player
        assert player["duration_s"] == pytest.approx(expected.seconds, abs=0.1), state["type"]
        assert player["advanced_s"] > 0.1, f"{state['type']}: {player}"
        if state["type"].startswith("MMAudioGraph"):
            assert len(state["pictures"]) == max(expected.sounds, 1), state["type"]
            assert all(width > 100 and height > 100 for width, height in state["pictures"])


@pytest.mark.usefixtures("page")
def test_template_browser(gallery: Server) -> None:
    (found,) = drive(gallery.url, [{"do": "templates", "pack": PACK}])
    assert "error" not in found, found
    for name in NAMES:
        widths = [width for words, width, _ in found["pictures"] if name in words]
        assert max(widths, default=0) > 0, f"no thumbnail of {name}: {found['pictures']}"


@pytest.mark.usefixtures("page")
def test_pictures_of_newer_nodes(gallery: Server) -> None:
    """Newer pages can draw nodes as parts of the page; there too our nodes show a picture and not a broken video."""
    version = gallery.get("/system_stats")["system"]["comfyui_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < (0, 4):
        pytest.skip(f"in ComfyUI {version} such nodes are an unfinished experiment")
    for name, kind in (("all_in_one", "MMAudioGraphGenerate"), ("video_to_audio", "MMAudioGraphDecode")):
        gallery.post("/free", {"free_memory": True})
        steps = [{"do": "setting", "key": "Comfy.VueNodes.Enabled", "value": True}]
        steps += [{"do": "load", "workflow": read(name), "name": name}, {"do": "run"}, {"do": "words"}]
        *_, run, words = drive(gallery.url, [*steps, {"do": "setting", "key": "Comfy.VueNodes.Enabled", "value": False}])[:-1]
        assert run["status"] == "execution_success", run
        assert "failed to load" not in words["text"].lower()
        on_page = any((width, height) == (600, 256) for _, width, height in words["pictures"])
        on_canvas = any(state["type"] == kind and state["pictures"] for state in run["shown"].values())
        assert on_page or on_canvas, f"{kind} shows no spectrogram"
