"""The network with a part of its weights left in main memory, as under --lowvram and --novram."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mmaudio_core.spec.model import FlowSpec

from .graphs import Graph
from .server import PACK, ROOT, Server
from .weights import write_flow, write_lora

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(900)]

SPEC = FlowSpec(20, 128, 2, joint_blocks=3, audio_blocks=3, v2=True, clip_dim=64, sync_dim=128, text_dim=64)
SCRIPT = Path(__file__).with_name("inside") / "partial_load.py"


def test_half_loaded_gives_the_same(comfy: tuple[Path, str], tmp_path: Path) -> None:
    folder, python = comfy
    weights = write_flow(tmp_path / "flow.safetensors", SPEC)
    write_lora(tmp_path / "lora.safetensors", weights)
    command = [python, str(SCRIPT), str(ROOT), str(tmp_path / "flow.safetensors"), str(tmp_path / "lora.safetensors")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(result)
    assert result["plain"]["behind"] > 20
    assert result["plain"]["error"] == 0
    assert result["lora"]["error"] < 1e-5
    assert result["plain"]["again"]
    assert result["devices"] == ["cpu", "meta"], "nothing was left behind on the other device"
    assert result["result_device"] == "meta"
    assert result["whole"] == ["meta"]


@pytest.mark.parametrize("option", ["--fp16-unet", "--force-fp32", "--cache-none"])
def test_the_hosts_flags(comfy: tuple[Path, str], tmp_path: Path, option: str) -> None:
    """The whole chain on a server with the flag (--lowvram and --novram exclude --cpu, hence the test above)."""
    server = Server(*comfy, tmp_path, options=(option,)).start()
    try:
        graph = Graph()
        loaded = graph.ours("LoadVariant")
        prompt = graph.ours("EncodePrompt", encoders=(loaded, 2), prompt="rain")
        latent = (graph.ours("EmptyLatent", model=(loaded, 0)), 0)
        sampled = graph.ours("Sampler", model=(loaded, 0), positive=(prompt, 0), negative=(prompt, 1), latent=latent)
        decoded = graph.ours("Decode", latent=(sampled, 0), vae=(loaded, 1))
        assert server.run(graph.prompt)[decoded]["audio"]
        assert f"custom_nodes/{PACK}" in server.log
        if option == "--fp16-unet":
            assert "weights torch.float16" in server.log
    finally:
        server.stop()
