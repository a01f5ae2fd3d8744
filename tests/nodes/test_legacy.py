"""Nodes for old workflows: the old inputs in their order, run on our parts."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmaudio_core.pipeline.files import EMBEDDED_FILE

from .host import ROOT, Host
from .made_up import OTHERS, SPECS_44K, pictures, write_part

OLD_INPUTS = {
    "MMAudioModelLoader": ["mmaudio_model", "base_precision"],
    "MMAudioVoCoderLoader": ["vocoder_model"],
    "MMAudioFeatureUtilsLoader": [
        "vae_model",
        "synchformer_model",
        "clip_model",
        "bigvgan_vocoder_model",
        "mode",
        "precision",
    ],
    "MMAudioSampler": [
        "mmaudio_model",
        "feature_utils",
        "duration",
        "steps",
        "cfg",
        "seed",
        "prompt",
        "negative_prompt",
        "mask_away_clip",
        "force_offload",
        "images",
    ],
}
OLD_OUTPUTS = {
    "MMAudioModelLoader": ("MMAUDIO_MODEL", "mmaudio_model"),
    "MMAudioVoCoderLoader": ("VOCODER_MODEL", "mmaudio_vocoder"),
    "MMAudioFeatureUtilsLoader": ("MMAUDIO_FEATUREUTILS", "mmaudio_featureutils"),
    "MMAudioSampler": ("AUDIO", "audio"),
}
DATA = ROOT / "tests" / "comfyui" / "data"
FLOW, VAE = "mmaudio_large_44k_v2_fp16.safetensors", "mmaudio_vae_44k_fp16.safetensors"
SYNC, CLIP = "mmaudio_synchformer_fp16.safetensors", "apple_DFN5B-CLIP-ViT-H-14-384_fp16.safetensors"


@pytest.fixture
def old(host: Host) -> Host:
    """A host that can run the nodes under the old ids, with the usual files, each of which is the embedded family."""
    host.nodes |= {node.define_schema().node_id: node for node in host.of("nodes.legacy").aliases()}
    for name in (FLOW, VAE, SYNC, CLIP):
        shutil.copy(EMBEDDED_FILE, host.models / name)
    host.of("nodes.host.legacy")._say_auto.cache_clear()
    return host


def load(old: Host, **chosen: Any) -> dict[str, Any]:
    model = old.run("MMAudioModelLoader", mmaudio_model=FLOW)[0]
    given = {"vae_model": VAE, "synchformer_model": SYNC, "clip_model": CLIP} | chosen
    return {"mmaudio_model": model, "feature_utils": old.run("MMAudioFeatureUtilsLoader", **given)[0]}


def sample(old: Host, parts: dict[str, Any] | None = None, **chosen: Any) -> dict[str, Any]:
    given = {"steps": 2, "seed": 3} | (parts or load(old)) | chosen
    return old.run("MMAudioSampler", **given)[0]


def seconds(audio: dict[str, Any]) -> float:
    return audio["waveform"].shape[-1] / audio["sample_rate"]


def test_inputs_and_outputs_are_the_old_ones(old: Host) -> None:
    for old_id, names in OLD_INPUTS.items():
        schema = old.nodes[old_id].define_schema()
        new = ["fps"] if old_id == "MMAudioSampler" else []
        assert [given.id for given in schema.inputs] == names + new
        assert [(out.io_type, out.display_name) for out in schema.outputs] == [OLD_OUTPUTS[old_id]]
        assert schema.is_deprecated
        assert schema.category == "MMAudio Graph/legacy"
        own = old.of("nodes.legacy").NODES[list(OLD_INPUTS).index(old_id)].define_schema()
        assert own.node_id == old_id.replace("MMAudio", "MMAudioGraphLegacy")
        assert [given.id for given in own.inputs] == names + new


def test_every_input_is_explained_and_taken(old: Host) -> None:
    for old_id in OLD_INPUTS:
        node = old.nodes[old_id]
        schema, parameters = node.define_schema(), inspect.signature(node.execute).parameters
        assert list(parameters) == [given.id for given in schema.inputs]
        for given in schema.inputs:
            assert given.optional == (parameters[given.id].default is not inspect.Parameter.empty), given.id
            if given.io_type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                assert len(given.tooltip or "") > 10, given.id


def test_old_widget_values_fall_into_place(old: Host) -> None:
    """The page gives the n-th stored value to the n-th widget; a seed has a second one, for what follows a run."""
    for node in json.loads((DATA / "old_pack_ui.json").read_text())["nodes"]:
        if node["type"] not in OLD_INPUTS:
            continue
        widgets: list[Any] = []
        for given in old.nodes[node["type"]].define_schema().inputs:
            if given.widget:
                widgets += [given, None] if given.id == "seed" else [given]
        for given, value in zip(widgets, node["widgets_values"], strict=False):
            kinds = {"FLOAT": float, "INT": int, "STRING": str, "COMBO": str, "BOOLEAN": bool}
            if given is not None:
                assert type(value) is kinds[given.io_type], given.id
            if given is not None and given.io_type == "COMBO":
                assert value in given.options
        assert len(widgets) - len(node["widgets_values"]) == (node["type"] == "MMAudioSampler")


def test_the_old_prompt_runs(old: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Node by node, as the server calls them."""
    prompt = json.loads((DATA / "old_pack_api.json").read_text())
    results: dict[str, Any] = {"2": (pictures(64),)}
    with caplog.at_level(logging.INFO, "mmaudio"):
        for number in ("3", "4", "5"):
            links = {k: v for k, v in prompt[number]["inputs"].items() if not isinstance(v, list)}
            links |= {k: results[v[0]][v[1]] for k, v in prompt[number]["inputs"].items() if isinstance(v, list)}
            results[number] = old.run(prompt[number]["class_type"], **links)
    audio = results["5"][0]
    assert audio["sample_rate"] == 16_000, "of the model, not 44100"
    assert seconds(audio) == pytest.approx(64 / 25, abs=1e-4)
    said = [record.getMessage() for record in caplog.records]
    assert sum("shown at 25 frames per second" in text for text in said) == 1
    assert sum("asks for fp16" in text for text in said) == 1
    assert sum("ends after 2.56 s" in text for text in said) == 1


def test_it_equals_the_all_in_one_node(old: Host) -> None:
    pipeline = old.run("LoadPipeline", variant="tiny (embedded)")[0]
    shown = {"images": pictures(32), "fps": 16.0, "prompt": "steps", "negative_prompt": "music", "seed": 3, "steps": 2}
    new = old.run("Generate", pipeline=pipeline, duration_s=1.5, **shown)[0]
    out = sample(old, duration=1.5, **shown)
    assert torch.allclose(out["waveform"], new["waveform"], atol=1e-5 * float(new["waveform"].abs().max()))


def test_the_whole_clip_is_seen_at_its_frame_rate(old: Host, caplog: pytest.LogCaptureFixture) -> None:
    parts = load(old)
    slow = sample(old, parts, images=pictures(32), fps=16.0, duration=0.0)
    assert seconds(slow) == pytest.approx(2.0)
    assert not [r for r in caplog.records if "frames per second" in r.getMessage()]
    changed = pictures(32)
    changed[-8:] = 0.9  # half a second that the old node, which took the first frames, never looked at
    assert not torch.equal(slow["waveform"], sample(old, parts, images=changed, fps=16.0, duration=0.0)["waveform"])
    assert seconds(sample(old, parts, images=pictures(32), fps=16.0, duration=1.0)) == pytest.approx(1.0)


def test_a_connected_frame_rate_needs_no_warning(old: Host, caplog: pytest.LogCaptureFixture) -> None:
    node = old.nodes["MMAudioSampler"]
    given = {i.id: i.default for i in node.define_schema().inputs if i.widget}
    given |= {**load(old), "steps": 1, "images": pictures(25), "duration": 1.0}
    for fps, warnings in ([["2", 2], 0], [25.0, 1]):
        caplog.clear()
        hidden = SimpleNamespace(unique_id="5", prompt={"5": {"inputs": {"fps": fps}}})
        type("Clone", (node,), {"hidden": hidden}).execute(**given)
        assert sum("frames per second" in r.getMessage() for r in caplog.records) == warnings


def test_durations(old: Host) -> None:
    parts = load(old)
    assert seconds(sample(old, parts, duration=1.25)) == pytest.approx(1.25)
    assert seconds(sample(old, parts, duration=0.0)) == pytest.approx(8.0)
    assert seconds(sample(old, parts, duration=1.0, images=pictures(1))) == pytest.approx(1.0)


def test_masking_leaves_clip_out(old: Host) -> None:
    parts = load(old)
    shown = {"images": pictures(32), "fps": 16.0, "duration": 0.0}
    masked = sample(old, parts, mask_away_clip=True, **shown)["waveform"]
    assert not torch.equal(masked, sample(old, parts, **shown)["waveform"])
    encoders = old.of("nodes.host.encoders").Encoders(None, EMBEDDED_FILE, "auto")
    without = SimpleNamespace(encoders=encoders, sound=parts["feature_utils"].sound)
    assert torch.equal(masked, sample(old, {**parts, "feature_utils": without}, **shown)["waveform"])


def test_force_offload_and_guidance_below_one_change_nothing(old: Host) -> None:
    parts = load(old)
    first = sample(old, parts, duration=1.0, force_offload=True)
    assert torch.equal(first["waveform"], sample(old, parts, duration=1.0, force_offload=False)["waveform"])
    unguided = sample(old, parts, duration=1.0, cfg=1.0)
    assert torch.equal(unguided["waveform"], sample(old, parts, duration=1.0, cfg=0.0)["waveform"])


def test_loaders_read_headers_only(old: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a loader read weights")

    for module in ("pipeline", "encoders", "sound"):
        monkeypatch.setattr(old.of(f"nodes.host.{module}"), "load_part", refuse)
    load(old, bigvgan_vocoder_model=old.run("MMAudioVoCoderLoader", vocoder_model=VAE)[0])


def test_parts_are_loaded_once(old: Host) -> None:
    parts = load(old)
    sample(old, parts, duration=1.0)
    placed = parts["mmaudio_model"].placed()
    sample(old, parts, duration=1.0, seed=4)
    assert parts["mmaudio_model"].placed() is placed


def test_a_44k_vocoder_is_found_by_its_header(old: Host) -> None:
    for kind, name in (("flow", "a.safetensors"), ("vae", "b.safetensors")):
        write_part(old.models / name, SPECS_44K[kind])
    with pytest.raises(ValueError, match=r"no 44k vocoder in .*download bigvgan_generator\.pt \(MIT\) from https://"):
        load(old, vae_model="b.safetensors")
    hidden = old.models / "nvidia" / "bigvgan_v2_44khz_128band_512x" / "bigvgan_generator.pt"
    whole = write_part(old.tmp / "v.safetensors", SPECS_44K["vocoder"])
    hidden.parent.mkdir(parents=True)
    from safetensors.torch import load_file

    torch.save({"generator": {k.removeprefix("vocoder."): v for k, v in load_file(whole).items()}}, hidden)
    wrong = old.run("MMAudioVoCoderLoader", vocoder_model=VAE)[0]
    for vocoder in (None, wrong):
        parts = load(old, vae_model="b.safetensors", bigvgan_vocoder_model=vocoder, mode="44k")
        assert parts["feature_utils"].sound.vocoder == hidden
    model = old.run("MMAudioModelLoader", mmaudio_model="a.safetensors")[0]
    audio = sample(old, {**parts, "mmaudio_model": model}, duration=1.0)
    assert audio["sample_rate"] == 44_100
    assert seconds(audio) == pytest.approx(1.0)


def test_parts_of_two_rates_are_refused(old: Host) -> None:
    write_part(old.models / "a.safetensors", SPECS_44K["flow"])
    model = old.run("MMAudioModelLoader", mmaudio_model="a.safetensors")[0]
    with pytest.raises(ValueError, match="The VAE is a 16k one and the model needs 44k"):
        sample(old, {**load(old), "mmaudio_model": model}, duration=1.0)


def test_wrong_and_missing_files_are_named(old: Host) -> None:
    write_part(old.models / "clip.safetensors", OTHERS["clip"])
    with pytest.raises(ValueError, match=r"nothere\.safetensors is not in"):
        old.run("MMAudioModelLoader", mmaudio_model="nothere.safetensors")
    with pytest.raises(ValueError, match=r"clip\.safetensors is a CLIP model.*flow network"):
        old.run("MMAudioModelLoader", mmaudio_model="clip.safetensors")


@pytest.mark.parametrize(("precision", "used"), [("fp16", "auto"), ("bf16", "auto"), ("fp32", "fp32")])
def test_a_half_precision_on_a_cpu_is_not_insisted_on(old: Host, precision: str, used: str) -> None:
    assert old.of("nodes.host.legacy").usable_precision(precision) == used


def test_only_fitting_files_are_listed(old: Host) -> None:
    write_part(old.models / "sub" / "c.safetensors", OTHERS["clip"])
    lists = {i.id: i.options for i in old.nodes["MMAudioFeatureUtilsLoader"].define_schema().inputs if i.io_type == "COMBO"}
    assert str(Path("sub") / "c.safetensors") in lists["clip_model"]
    assert str(Path("sub") / "c.safetensors") not in lists["vae_model"]
