"""A file that takes the place of another under the same name is loaded anew: the loaders' fingerprints change with it."""

from __future__ import annotations

import os
from typing import Any

from .host import TINY, Host
from .made_up import SPECS_44K, write_44k


def touched(path: Any) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def test_loaders(host: Host) -> None:
    path = host.models / "one.safetensors"
    path.write_bytes(b"1")
    inputs: dict[str, dict[str, Any]] = {
        "LoadModel": {"model_file": path.name, "precision": "auto"},
        "LoadVAE": {"vae_file": TINY, "vocoder_file": path.name, "precision": "auto"},
        "LoadEncoders": {"clip_file": path.name, "synchformer_file": "none", "precision": "auto"},
    }
    before = {name: host.nodes[name].fingerprint_inputs(**given) for name, given in inputs.items()}
    assert before == {name: host.nodes[name].fingerprint_inputs(**given) for name, given in inputs.items()}
    touched(path)
    for name, given in inputs.items():
        assert host.nodes[name].fingerprint_inputs(**given) != before[name], name
    path.unlink()
    for name, given in inputs.items():
        host.nodes[name].fingerprint_inputs(**given)  # a missing file is execute's to tell


def test_loaders_of_old_workflows(host: Host) -> None:
    path = host.models / "one.safetensors"
    path.write_bytes(b"1")
    inputs = {
        "LegacyModelLoader": ("mmaudio_model",),
        "LegacyVoCoderLoader": ("vocoder_model",),
        "LegacyFeatureUtilsLoader": ("vae_model", "synchformer_model", "clip_model"),
    }
    cases = [(host.nodes[node], {name: path.name}) for node, names in inputs.items() for name in names]
    before = [node.fingerprint_inputs(**given) for node, given in cases]
    touched(path)
    assert all(node.fingerprint_inputs(**given) != old for (node, given), old in zip(cases, before, strict=True))


def test_lora(host: Host) -> None:
    path = host.loras / "one.safetensors"
    path.write_bytes(b"1")
    node = host.nodes["LoadLoRA"]
    before = node.fingerprint_inputs(model=None, lora_file=path.name, strength=1.0)
    touched(path)
    assert before
    assert node.fingerprint_inputs(model=None, lora_file=path.name, strength=1.0) != before
    assert node.fingerprint_inputs(model=None, lora_file="missing.safetensors", strength=1.0) == ""


def test_variants(host: Host) -> None:
    files = write_44k(host.models / "mine")
    variant = SPECS_44K["flow"].variant  # type: ignore[attr-defined]
    embedded = host.of("mmaudio_core.pipeline.files").EMBEDDED_FILE
    (host.models / "encoders.safetensors").write_bytes(embedded.read_bytes())
    for name in ("LoadVariant", "LoadPipeline", "Generate"):
        node = host.nodes[name]
        assert node.fingerprint_inputs(variant=TINY, download="no", precision="auto") == ""
        assert node.fingerprint_inputs(variant="large_44k_v2", download="no", precision="auto") == ""
        before = node.fingerprint_inputs(variant=variant, download="no", precision="auto")
        assert before
        touched(files["flow"])
        assert node.fingerprint_inputs(variant=variant, download="no", precision="auto") != before
