from __future__ import annotations

import gc
import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import VAES, VARIANTS, VOCODERS, SynchformerSpec
from mmaudio_core.weights import build
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.metadata import encode_part

from .support import TINY, manifest, spelled, tiny

KINDS = list(TINY)


def write(path, kind, state, container):
    if container == "safetensors":
        save_file(state, path, metadata=encode_part(TINY[kind]))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=container == "zip")


def load(path, kind, **options):
    return load_part(path, kind, **({"fold": False} | options))


@pytest.mark.parametrize("container", ["safetensors", "zip", "pickle"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "clip"])
def test_every_part_from_every_container(tmp_path, kind, container):
    write(tmp_path / "x", kind, tiny(kind), container)
    module, spec = load(tmp_path / "x", kind)
    assert spec == TINY[kind]
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    state = module.state_dict()
    assert set(state) == set(tiny(kind))
    assert all(torch.equal(state[name], tensor) for name, tensor in tiny(kind).items())


def test_the_loaded_module_computes_what_the_source_computes(tmp_path):
    source = build.build_module(TINY["vocoder"]).eval()
    source.load_state_dict({name: tensor * 0.02 for name, tensor in tiny("vocoder").items()})
    torch.save({"generator": source.state_dict()}, tmp_path / "g.pt")
    module, _ = load(tmp_path / "g.pt", "vocoder")
    mel = torch.randn(1, 128, 5)
    with torch.no_grad():
        assert torch.equal(module(mel), source(mel))


@pytest.mark.parametrize(("image", "text"), [(True, True), (False, True), (True, False)])
def test_only_the_asked_tower_of_clip(tmp_path, image, text):
    write(tmp_path / "clip", "clip", tiny("clip"), "safetensors")
    module, spec = load(tmp_path / "clip", "clip", image=image, text=text)
    names = set(module.state_dict())
    assert spec == TINY["clip"]
    assert any(name.startswith("visual.") for name in names) == image
    assert ("token_embedding.weight" in names) == text
    assert names == {name for name in tiny("clip") if (image if name.startswith("visual.") else text)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_everything_follows_the_asked_format(tmp_path, dtype):
    state = {name: tensor.half() if i % 3 else tensor for i, (name, tensor) in enumerate(tiny("flow").items())}
    save_file(state, tmp_path / "mixed")
    module, _ = load(tmp_path / "mixed", "flow", dtype=dtype)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {dtype}
    assert torch.equal(module.state_dict()["latent_mean"], state["latent_mean"].to(dtype))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
    ],
)
def test_without_a_wish_the_file_decides(tmp_path, stored, expected):
    state = {name: tensor.to(stored) if tensor.dim() > 1 else tensor for name, tensor in tiny("flow").items()}
    save_file(state, tmp_path / "x")
    module, _ = load(tmp_path / "x", "flow")
    assert {tensor.dtype for tensor in module.state_dict().values()} == {expected}


def mappings(path):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists the mappings of a process")
    lines = (line.split() for line in maps.read_text().splitlines() if line.endswith(str(path)))
    return [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]


@pytest.mark.parametrize("container", ["safetensors", "zip"])
def test_parameters_are_private_views_of_the_file_until_converted(tmp_path, container):
    path = tmp_path / container
    write(path, "flow", tiny("flow"), container)
    module, _ = load(path, "flow")
    ranges = mappings(path)
    assert all(any(low <= value.data_ptr() < high for low, high in ranges) for value in module.state_dict().values())
    with torch.no_grad():
        module.final_layer.conv.bias.zero_()
    again, _ = load(path, "flow")
    assert torch.equal(again.state_dict()["final_layer.conv.bias"], tiny("flow")["final_layer.conv.bias"])
    del module, again
    converted, _ = load(path, "flow", dtype=torch.bfloat16)
    gc.collect()
    assert not mappings(path)
    assert torch.equal(converted.latent_mean, tiny("flow")["latent_mean"].bfloat16())


def test_vae_weights_are_folded_unless_told_otherwise(tmp_path):
    torch.save(tiny("vae"), tmp_path / "vae")
    folded, _ = load_part(tmp_path / "vae", "vae")
    raw, _ = load_part(tmp_path / "vae", "vae", fold=False)
    name = "encoder.conv_in.weight"
    assert torch.equal(raw.state_dict()[name], tiny("vae")[name])
    assert not torch.equal(folded.state_dict()[name], tiny("vae")[name])
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in folded.parameters())


class TestDamaged:
    def damaged(self, tmp_path, kind, change):
        state = tiny(kind)
        change(state)
        torch.save(state, tmp_path / "x.pth")
        with pytest.raises(WeightsError) as caught:
            load(tmp_path / "x.pth", kind)
        return str(caught.value)

    def test_missing(self, tmp_path):
        def change(state):
            for name in [name for name in state if "fused_blocks.1" in name]:
                del state[name]

        message = self.damaged(tmp_path, "flow", change)
        # Two of three blocks are left, so two are built, and the last one in the file has no place.
        assert "lacks 11 tensors: fused_blocks.1." in message
        assert "has the unknown 11 tensors: fused_blocks.2." in message

    def test_one_missing(self, tmp_path):
        message = self.damaged(tmp_path, "vae", lambda state: state.pop("decoder.up.0.block.1.conv2.weight"))
        assert "lacks 1 tensor: decoder.up.0.block.1.conv2.weight. The file is damaged or of another model." in message

    def test_many_missing_are_counted(self, tmp_path):
        names = [name for name in tiny("vocoder") if "convs2" in name and name.endswith("bias")]
        message = self.damaged(tmp_path, "vocoder", lambda state: [state.pop(name) for name in names])
        assert f"lacks {len(names)} tensors: {', '.join(names[:5])}, and {len(names) - 5} more" in message

    def test_surplus(self, tmp_path):
        message = self.damaged(tmp_path, "synchformer", lambda state: state.update(surprise=torch.ones(1)))
        assert "has the unknown 1 tensor: surprise" in message

    def test_misshaped(self, tmp_path):
        message = self.damaged(tmp_path, "flow", lambda state: state.update({"clip_cond_proj.bias": torch.ones(7)}))
        assert "has of the wrong shape 1 tensor: clip_cond_proj.bias (7,) instead of (128,)" in message

    def test_all_at_once(self, tmp_path):
        def change(state):
            del state["text_cond_proj.bias"]
            state["surprise"] = torch.ones(1)
            state["clip_cond_proj.bias"] = torch.ones(7)

        message = self.damaged(tmp_path, "flow", change)
        assert all(text in message for text in ("text_cond_proj.bias", "surprise", "clip_cond_proj.bias (7,)"))

    def test_a_wrong_data_mean(self, tmp_path):
        assert "data_mean" in self.damaged(tmp_path, "vae", lambda state: state.update(data_mean=torch.ones(1, 80, 1)))


def test_a_buffer_without_values_is_refused(tmp_path, monkeypatch):
    original = build.build_module

    def with_table(spec, **options):
        module = original(spec, **options)
        module.register_buffer("table", torch.ones(3), persistent=False)
        return module

    monkeypatch.setattr(build, "build_module", with_table)
    torch.save(tiny("flow"), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="left without values 1 tensor: table"):
        load(tmp_path / "x.pth", "flow")


def test_expected_variant(tmp_path):
    torch.save(tiny("vae"), tmp_path / "v1-16.pth")
    with pytest.raises(
        WeightsError,
        match=r"v1-16\.pth is a mel VAE \(custom size, 44\.1 kHz\); a mel VAE such as v1-16\.pth belongs "
        r"here \(16k\)",
    ):
        load(tmp_path / "v1-16.pth", "vae", expect="16k")


@pytest.mark.parametrize("right", KINDS)
def test_a_file_of_another_kind_is_named(tmp_path, right):
    write(tmp_path / "x.pth", right, tiny(right), "zip")
    for wrong in KINDS:
        if wrong != right:
            with pytest.raises(WeightsError, match=r"x\.pth is a .*; a .* such as .* belongs here\.$"):
                load(tmp_path / "x.pth", wrong)


def test_names_of_files_mean_nothing(tmp_path):
    path = tmp_path / "mmaudio_large_44k_v2_fp16.safetensors"
    torch.save({f"module.{name}": tensor for name, tensor in tiny("flow").items()}, path)
    assert load(path, "flow")[1] == TINY["flow"]


FULL = [(f"mmaudio_{name}", "flow", spec) for name, spec in VARIANTS.items()] + [
    ("vae_16k", "vae", VAES["16k"]),
    ("vae_44k", "vae", VAES["44k"]),
    ("bigvgan_16k", "vocoder", VOCODERS["16k"]),
    ("bigvgan_v2_44k", "vocoder", VOCODERS["44k"]),
    ("synchformer_visual", "synchformer", SynchformerSpec()),
]


@pytest.mark.slow
@pytest.mark.parametrize("container", ["zip", "safetensors"])
@pytest.mark.parametrize(("name", "kind", "spec"), FULL, ids=[name for name, _, _ in FULL])
def test_published_sizes_from_disk(tmp_path, name, kind, spec, container):
    for spelling in ("weight_norm", "parametrized", "folded") if kind == "vocoder" else ("",):
        shapes = spelled(manifest(name), spelling)
        noise = torch.randn(1 << 16)
        state = {
            key: noise.repeat(-(-(n := max(1, int(torch.Size(s).numel()))) // len(noise)))[:n].reshape(s)
            for key, s in shapes.items()
        }
        path = tmp_path / "wrongly_named_16k.bin"
        if container == "zip":
            torch.save({"generator": state} if kind == "vocoder" else state, path)
        else:
            save_file(state, path)
        module, found = load_part(path, kind, dtype=torch.bfloat16)
        assert found == spec
        assert not any(value.is_meta for value in itertools.chain(module.parameters(), module.buffers()))
        path.unlink()
