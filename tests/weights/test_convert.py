from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.weights import safetensors_file
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.convert import convert, write_family
from mmaudio_core.weights.keymaps import full_synchformer
from mmaudio_core.weights.metadata import encode_part
from mmaudio_core.weights.parts import open_part

from .support import TINY, manifest, tiny

KINDS = list(TINY)


def published(kind):
    """A tiny part as its publisher would store it."""
    state = tiny(kind)
    if kind == "synchformer":
        state = {f"vfeat_extractor.{name}": tensor for name, tensor in state.items()}
    return state


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "clip"])
def test_round_trip_is_exact_and_self_describing(tmp_path, kind):
    torch.save(published(kind), tmp_path / "source.pth")
    path = convert(tmp_path / "source.pth", tmp_path / "part.safetensors")
    # Read by the safetensors package, not by our own reader.
    state = load_file(path)
    assert set(state) == set(published(kind))
    assert all(
        torch.equal(state[name], tensor) and state[name].dtype == tensor.dtype for name, tensor in published(kind).items()
    )
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    values = json.loads(metadata["mmaudio_graph"])
    assert metadata["format"] == "pt"
    assert values["format"] == 1
    assert values["kind"] == kind
    assert values["source_name"] == "source.pth"
    assert values["licence"]
    assert type(TINY[kind]).from_dict(values["spec"]) == TINY[kind]
    module, spec = load_part(path, kind, fold=False)
    assert spec == TINY[kind]
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in tiny(kind).items())


def test_metadata_survive_a_second_conversion(tmp_path):
    # Shapes alone do not say this CLIP's head widths.
    safetensors_file.write_safetensors(tmp_path / "a", tiny("clip"), encode_part(TINY["clip"], licence="theirs"))
    convert(tmp_path / "a", tmp_path / "b")
    part = open_part(tmp_path / "b")
    assert part.detected.spec == TINY["clip"]
    assert part.values["licence"] == "theirs"


def test_weight_norm_is_folded_and_filters_left_out(tmp_path):
    state = {}
    for name, tensor in tiny("vocoder").items():
        if name.endswith("weight"):
            state[f"{name}_g"] = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            state[f"{name}_v"] = tensor * 3
        else:
            state[name] = tensor
    state["activation_post.upsample.filter"] = torch.ones(1, 1, 12)
    torch.save({"generator": state}, tmp_path / "g.pt")
    converted = load_file(convert(tmp_path / "g.pt", tmp_path / "g.safetensors"))
    assert set(converted) == set(tiny("vocoder"))
    for name, tensor in tiny("vocoder").items():
        torch.testing.assert_close(converted[name], tensor, rtol=1e-5, atol=1e-6)


def test_all_of_synchformer_is_kept(tmp_path):
    shapes = manifest("synchformer_full")
    torch.save({f"module.{name}": torch.zeros(()).expand(shape) for name, shape in shapes.items()}, tmp_path / "s.pth")
    path = convert(tmp_path / "s.pth", tmp_path / "s.safetensors", torch.float8_e4m3fn)
    used = {name for name in shapes if not name.startswith("vfeat_extractor.patch_embed.proj.")}
    part = open_part(path, "synchformer")
    assert set(full_synchformer(part.file.tensors)) == used
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == used


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_conversion_of_the_number_format(tmp_path, dtype):
    torch.save(tiny("flow"), tmp_path / "a.pth")
    state = load_file(convert(tmp_path / "a.pth", tmp_path / "b.safetensors", dtype))
    assert all(torch.equal(state[name], tensor.to(dtype)) for name, tensor in tiny("flow").items())


def test_bytes_are_the_same_every_time(tmp_path):
    torch.save(tiny("vae"), tmp_path / "a.pth")
    shuffled = dict(reversed(tiny("vae").items()))
    first = convert(tmp_path / "a.pth", tmp_path / "1.safetensors").read_bytes()
    again = convert(tmp_path / "a.pth", tmp_path / "2.safetensors").read_bytes()
    torch.save(shuffled, tmp_path / "a.pth")
    other_order = convert(tmp_path / "a.pth", tmp_path / "3.safetensors").read_bytes()
    assert first == again == other_order
    # Another process has another hash seed.
    code = "import sys; from mmaudio_core.weights.convert import convert; convert(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.pth"), str(tmp_path / "4.safetensors")], check=True)
    assert (tmp_path / "4.safetensors").read_bytes() == first
    length = int.from_bytes(first[:8], "little")
    assert length % 8 == 0


def test_targets(tmp_path):
    torch.save(tiny("vae"), tmp_path / "a.pth")
    target = convert(tmp_path / "a.pth", tmp_path / "b")
    with pytest.raises(WeightsError, match="exists; remove it, choose another name, or ask to overwrite it"):
        convert(tmp_path / "a.pth", target)
    assert convert(tmp_path / "a.pth", target, torch.float16, overwrite=True) == target
    assert load_file(target)["data_mean"].dtype == torch.float16
    with pytest.raises(WeightsError, match="would be written over itself"):
        convert(target, target, overwrite=True)
    with pytest.raises(WeightsError, match=r"is a folder; give the name of the file to write"):
        convert(target, tmp_path)
    with pytest.raises(WeightsError, match=r"The folder .* does not exist"):
        convert(target, tmp_path / "no" / "x")
    with pytest.raises(WeightsError, match=r"is a mel VAE .*; a flow network such as"):
        convert(target, tmp_path / "c", kind="flow")


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    torch.save(tiny("vae"), tmp_path / "a.pth")
    old = tmp_path / "old.safetensors"
    old.write_bytes(b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_file, "_write_data", full)
    with pytest.raises(WeightsError, match=r"could not be written .No space left on device.; nothing was left behind"):
        convert(tmp_path / "a.pth", old, overwrite=True)
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "old.safetensors"]


SLOW_WRITER = """
import sys, time
import mmaudio_core.weights.safetensors_file as s
from mmaudio_core.weights.convert import convert
class Slow:
    def __init__(self, file): self.file = file
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, data):
        time.sleep(0.05); self.file.write(data); self.file.flush()
data = s._write_data
s._write_data = lambda file, *rest: data(Slow(file), *rest)
convert(sys.argv[1], sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_a_killed_conversion_leaves_no_file_and_the_next_one_succeeds(tmp_path):
    torch.save(tiny("vae"), tmp_path / "a.pth")
    target = tmp_path / "b.safetensors"
    process = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(tmp_path / "a.pth"), str(target)])
    partial = tmp_path / "b.safetensors.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 20_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    convert(tmp_path / "a.pth", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.safetensors"]
    assert set(load_file(target)) == set(tiny("vae"))


class TestFamily:
    def write(self, tmp_path):
        parts = {kind: (TINY[kind], tiny(kind)) for kind in KINDS}
        return write_family(parts, tmp_path / "family.safetensors", {"licence": "MIT", "variant": "tiny"})

    @pytest.mark.parametrize("kind", KINDS)
    def test_parts_come_out_as_they_went_in(self, tmp_path, kind):
        path = self.write(tmp_path)
        part = open_part(path, kind)
        assert part.detected.spec == TINY[kind]
        assert part.values["licence"] == "MIT"
        assert set(part.tensors) == set(tiny(kind))
        assert all(torch.equal(part.tensors[name], tensor) for name, tensor in tiny(kind).items())
        module, spec = load_part(path, kind, fold=False)
        assert spec == TINY[kind]
        assert set(module.state_dict()) == set(tiny(kind))

    def test_one_part_of_a_family_converted(self, tmp_path):
        path = convert(self.write(tmp_path), tmp_path / "flow.safetensors", kind="flow")
        assert load_part(path, "flow")[1] == TINY["flow"]

    def test_the_part_must_be_said(self, tmp_path):
        with pytest.raises(WeightsError, match=r"holds several parts .flow, vae, vocoder, synchformer, clip.; say which"):
            open_part(self.write(tmp_path))

    def test_a_part_that_is_not_there(self, tmp_path):
        path = write_family({"vae": (TINY["vae"], tiny("vae"))}, tmp_path / "f")
        with pytest.raises(WeightsError, match=r"is a mel VAE .*; a flow network such as"):
            open_part(path, "flow")

    def test_specs_and_kinds_must_agree(self, tmp_path):
        with pytest.raises(WeightsError, match="A part called 'vae' was given with the configuration of 'flow'"):
            write_family({"vae": (TINY["flow"], tiny("flow"))}, tmp_path / "f")

    def test_a_lying_family(self, tmp_path):
        path = write_family({"flow": (FlowSpec(40, 192, 3, 2, 3, v2=True), tiny("flow"))}, tmp_path / "f")
        with pytest.raises(WeightsError, match="its metadata say width = 192, but its tensors say 128"):
            open_part(path, "flow")
        path = write_family({"flow": (TINY["flow"], tiny("vae"))}, tmp_path / "g")
        with pytest.raises(WeightsError, match=r"its tensors under flow\. are none"):
            open_part(path, "flow")

    def test_deterministic(self, tmp_path):
        first = self.write(tmp_path).read_bytes()
        parts = {kind: (TINY[kind], tiny(kind)) for kind in reversed(KINDS)}
        second = write_family(
            parts, tmp_path / "family2.safetensors", {"variant": "tiny", "licence": "MIT", "source_name": "family.safetensors"}
        )
        assert second.read_bytes() == first
