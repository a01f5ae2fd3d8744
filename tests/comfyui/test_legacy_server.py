"""Workflows made for the other MMAudio pack, in the real program: run by us where it is absent, left to it else."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.pipeline.files import EMBEDDED_FILE

from .server import Server

pytestmark = pytest.mark.comfyui
DATA = Path(__file__).with_name("data")
PROMPT = json.loads((DATA / "old_pack_api.json").read_text())
OLD_IDS = ("MMAudioModelLoader", "MMAudioVoCoderLoader", "MMAudioFeatureUtilsLoader", "MMAudioSampler")
FILES = [value for node in PROMPT.values() for value in node["inputs"].values() if str(value).endswith(".safetensors")]
OTHER = """
class Other:
    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "run", "other"
    INPUT_TYPES = classmethod(lambda cls: {{"required": {{}}}})
    def run(self): return ("other",)
NODE_CLASS_MAPPINGS = {{name: type(name, (Other,), {{}}) for name in {ids}}}
"""


@pytest.fixture(scope="module")
def old(server: Server) -> Server:
    """The session's server with the files that the old prompt names: every one is the embedded family."""
    for name in FILES:
        shutil.copy(EMBEDDED_FILE, server.base / "models" / "mmaudio" / name)
    frames = (np.full((96, 96, 3), 3 * index, np.uint8) for index in range(64))
    write_silent_video(frames, 16, server.base / "input" / "street.mp4")
    return server


def variant(name: str) -> dict[str, Any]:
    """The old prompt, and what else was made with the old nodes."""
    prompt = copy.deepcopy(PROMPT)
    sampler, utils = prompt["5"]["inputs"], prompt["4"]["inputs"]
    if name == "text":
        del sampler["images"], prompt["1"], prompt["2"]
    elif name == "no titles":
        for node in prompt.values():
            del node["_meta"]
    elif name == "vocoder":
        prompt["7"] = {"class_type": "MMAudioVoCoderLoader", "inputs": {"vocoder_model": FILES[1]}, "_meta": {"title": ""}}
        utils |= {"bigvgan_vocoder_model": ["7", 0], "mode": "16k"}
    elif name == "fps":
        sampler["fps"] = ["2", 2]
    return prompt


@pytest.mark.parametrize(
    ("name", "duration_s"), [("as it was", 2.56), ("text", 3.0), ("no titles", 2.56), ("vocoder", 2.56), ("fps", 3.0)]
)
def test_an_old_prompt_runs(old: Server, name: str, duration_s: float) -> None:
    result = old.run(variant(name))["6"]["audio"][0]
    audio = load_sound(old.file(result))
    assert audio.sample_rate_hz == 16_000
    assert audio.duration_s == pytest.approx(duration_s, abs=1e-3)


def test_the_default_frame_rate_is_spoken_of(old: Server) -> None:
    prompt = variant("as it was")
    prompt["5"]["inputs"]["seed"] += 1
    before = old.log.count("shown at 25 frames per second")
    old.run(prompt)
    assert old.log.count("shown at 25 frames per second") == before + 1


@pytest.mark.parametrize("folder", ["aaa", "zzz", "hidden"])
def test_the_other_pack_keeps_its_ids(comfy: tuple[Path, str], tmp_path: Path, folder: str) -> None:
    """Whatever the order in which packs load; "hidden" names them in none of the files that are looked at."""
    pack = tmp_path / folder
    pack.mkdir()
    text = OTHER.format(ids=OLD_IDS)
    (pack / "deep.py").write_text(text)
    (pack / "__init__.py").write_text("from .deep import NODE_CLASS_MAPPINGS\n" if folder == "hidden" else text)
    server = Server(*comfy, tmp_path / "base")
    server.packs[folder] = pack
    server.start()
    try:
        for node_id in OLD_IDS:
            assert server.get(f"/object_info/{node_id}")[node_id]["python_module"] == f"custom_nodes.{folder}"
    finally:
        server.stop()
