from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmaudio_core.errors import WeightsError
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.spec.model import VAES, VARIANTS, VOCODERS, CLIPSpec, PartSpec, SynchformerSpec
from mmaudio_core.weights.convert import write_family
from mmaudio_core.weights.inspect import describe, file_digest
from mmaudio_core.weights.locate import FoundFile, best_variant, choose, default_folders, find_parts, missing_parts
from mmaudio_core.weights.metadata import encode_part

from .support import TINY, clip_shapes, manifest, tiny

KINDS = list(TINY)


def published_parts(*variants: str, folder: str = "w", dtype=torch.float32) -> list[FoundFile]:
    """What a search gives where these variants and everything they need are there."""
    items: list[tuple[str, str, PartSpec]] = [
        ("synchformer", "published", SynchformerSpec()),
        ("clip", "published", CLIPSpec()),
    ]
    for name in variants:
        audio = VARIANTS[name].audio.name
        items += [("flow", name, VARIANTS[name]), ("vae", audio, VAES[audio]), ("vocoder", audio, VOCODERS[audio])]
    return [
        FoundFile(Path(folder) / f"{kind}_{variant}", kind, variant, spec, dtype)
        for kind, variant, spec in dict.fromkeys(items)
    ]


def write_published(folder: Path) -> None:
    """Every published part, by name and shape; one number stands for all of a tensor, so the files are small."""
    names = [f"mmaudio_{name}" for name in VARIANTS] + [
        "vae_16k",
        "vae_44k",
        "bigvgan_16k",
        "bigvgan_v2_44k",
        "synchformer_full",
    ]
    for number, name in enumerate(names):
        state = {key: torch.zeros(()).expand(shape) for key, shape in manifest(name).items()}
        torch.save({"generator": state} if "bigvgan" in name else state, folder / f"{number}.pth")
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in clip_shapes().items()}, folder / "c.bin")


def test_published_files_are_found_by_content(tmp_path):
    write_published(tmp_path)
    found = find_parts([tmp_path])
    assert all(not item.reason for item in found), [item.reason for item in found]
    assert {item.variant for item in found if item.kind == "flow"} == set(VARIANTS)
    assert best_variant(found) == "large_44k_v2"
    for name in VARIANTS:
        paths = choose(found, name)
        assert set(paths) == set(KINDS)
        variants = {item.path: item.variant for item in found}
        assert variants[paths["flow"]] == name
        assert variants[paths["vae"]] == variants[paths["vocoder"]] == VARIANTS[name].audio.name


@pytest.mark.parametrize("missing", ["vae", "vocoder", "synchformer", "clip", "flow"])
def test_a_variant_counts_when_all_its_parts_are_there(missing):
    found = published_parts("large_44k_v2", "small_16k")
    assert best_variant(found) == "large_44k_v2"
    without = [item for item in found if not (item.kind == missing and item.variant in ("44k", "published", "large_44k_v2"))]
    assert missing_parts(without, "large_44k_v2") == [missing]
    assert best_variant(without) == (None if missing in ("synchformer", "clip") else "small_16k")
    with pytest.raises(WeightsError, match=r"For large_44k_v2 these files were not found: a .* \(.*\)\.$"):
        choose(without, "large_44k_v2")


def test_the_missing_file_is_named():
    with pytest.raises(WeightsError, match=r"a mel VAE \(v1-16\.pth\), a BigVGAN vocoder \(best_netG\.pt\)\.$"):
        choose([item for item in published_parts("small_16k") if item.kind not in ("vae", "vocoder")], "small_16k")


@pytest.mark.parametrize("best", ["large_44k_v2", "large_44k", "medium_44k", "small_44k", "small_16k"])
def test_order_of_preference(best):
    order = ["small_16k", "small_44k", "medium_44k", "large_44k", "large_44k_v2"]
    assert best_variant(published_parts(*order[: order.index(best) + 1])) == best


def test_float32_first_unless_half_is_asked_for():
    found = published_parts("small_44k", folder="b") + published_parts("small_44k", folder="a", dtype=torch.float16)
    assert {path.parent.name for path in choose(found, "small_44k").values()} == {"b"}
    assert {path.parent.name for path in choose(found, "small_44k", torch.float16).values()} == {"a"}
    assert {path.parent.name for path in choose(found, "small_44k", torch.bfloat16).values()} == {"a"}
    bf16 = found + published_parts("small_44k", folder="z", dtype=torch.bfloat16)
    assert {path.parent.name for path in choose(bf16, "small_44k", torch.bfloat16).values()} == {"z"}
    assert {path.parent.name for path in choose(reversed(bf16), "small_44k", torch.bfloat16).values()} == {"z"}


def test_published_networks_take_no_tiny_parts(tmp_path):
    write_family({kind: (TINY[kind], tiny(kind)) for kind in KINDS}, tmp_path / "tiny.safetensors")
    family = find_parts([tmp_path])
    assert [item.kind for item in family] == KINDS
    lone = [item for item in published_parts("large_44k_v2") if item.kind == "flow"]
    assert missing_parts(lone + family, "large_44k_v2") == ["vae", "vocoder", "synchformer", "clip"]


def test_a_family_is_a_variant_of_its_own(tmp_path):
    parts = {kind: (TINY[kind], tiny(kind)) for kind in KINDS}
    clip, sync = TINY["clip"], TINY["synchformer"]
    spec = type(TINY["flow"]).from_dict(
        {**TINY["flow"].to_dict(), "clip_dim": clip.embed_dim, "text_dim": clip.text_width, "sync_dim": sync.width}
    )
    from mmaudio_core.weights.build import build_module

    parts["flow"] = (spec, build_module(spec).state_dict())
    write_family(parts, tmp_path / "tiny.safetensors")
    found = find_parts([tmp_path]) + published_parts("small_16k")
    variant = next(item.variant for item in found if item.kind == "flow")
    assert variant.startswith("custom (width 128")
    assert set(choose(found, variant).values()) == {tmp_path / "tiny.safetensors"}
    assert best_variant(found) == "small_16k"
    assert best_variant(find_parts([tmp_path])) == variant


def test_depth_hidden_folders_links_and_reasons(tmp_path):
    deep = tmp_path / "a" / "b"
    (deep / "c").mkdir(parents=True)
    (tmp_path / ".partial").mkdir()
    for path in (deep / "in.pth", deep / "c" / "too_deep.pth", tmp_path / ".partial" / "x.pth", tmp_path / "wrong.txt"):
        torch.save(tiny("vae"), path)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "page.ckpt").write_bytes(b"<html>")
    torch.save(tiny("vae"), tmp_path / "whole.pth")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pth").read_bytes()[:-10])
    (tmp_path / "gone.pth").symlink_to(tmp_path / "nothing")
    found = find_parts([tmp_path, tmp_path / "not there"])
    good = {item.path.name for item in found if item.kind}
    assert good == {"in.pth", "whole.pth"}
    reasons = {item.path.name: item.reason for item in found if not item.kind}
    assert set(reasons) == {"page.ckpt", "cut.pt", "gone.pth"}
    assert "HTML page" in reasons["page.ckpt"]
    assert "cut off" in reasons["cut.pt"]


def test_five_hundred_files_are_searched_quickly(tmp_path):
    save_file(tiny("flow"), tmp_path / "first.safetensors")
    torch.save(tiny("vae"), tmp_path / "first.pth")
    for number in range(250):
        os.link(tmp_path / "first.safetensors", tmp_path / f"{number}.safetensors")
        os.link(tmp_path / "first.pth", tmp_path / f"{number}.pth")
    start = time.monotonic()
    found = find_parts([tmp_path])
    assert len([item for item in found if item.kind]) == 502
    assert time.monotonic() - start < 20


def test_no_numbers_are_read(tmp_path):
    # Data of which every page would be an error: the file is all there, but its numbers lie in a hole of the disk.
    path = tmp_path / "sparse.safetensors"
    save_file(tiny("vae"), path)
    size = path.stat().st_size
    length = int.from_bytes(path.read_bytes()[:8], "little")
    os.truncate(path, 8 + length)
    os.truncate(path, size)
    assert [item.kind for item in find_parts([tmp_path])] == ["vae"]


def test_default_folders(tmp_path):
    value = os.pathsep.join([str(tmp_path), "~/w", ""])
    assert default_folders({"MMAUDIO_WEIGHTS": value}) == [tmp_path, Path.home() / "w"]
    assert default_folders({}) == [Path.home() / ".cache" / "mmaudio-graph" / "weights"]


class TestDescribe:
    def test_a_part(self, tmp_path):
        torch.save({"generator": {name: tensor.half() for name, tensor in tiny("vocoder").items()}}, tmp_path / "g.pt")
        text = describe(tmp_path / "g.pt")
        assert text.splitlines()[0] == "g.pt: a BigVGAN vocoder (custom size, 44.1 kHz)"
        for piece in ("numbers in float16", "torch zip", "tensors under 'generator'", "weights: MIT", "width 64"):
            assert piece in text

    def test_our_own(self, tmp_path):
        save_file(tiny("vae"), tmp_path / "v", metadata=encode_part(TINY["vae"], source_name="v1-44.pth", licence="CC"))
        text = describe(tmp_path / "v")
        assert "written by this package: source_name 'v1-44.pth'" in text
        assert "  licence: CC" in text

    def test_a_family(self, tmp_path):
        write_family({kind: (TINY[kind], tiny(kind)) for kind in KINDS}, tmp_path / "f")
        text = describe(tmp_path / "f")
        assert all(f"\n  {kind} " in text for kind in KINDS)

    def test_a_wrong_file_gets_its_sentence(self, tmp_path):
        (tmp_path / "x").write_bytes(b"<html>")
        for name, words in (("x", "is an HTML page"), ("nothing", "does not exist")):
            with pytest.raises(WeightsError) as caught:
                describe(tmp_path / name)
            assert str(caught.value).startswith(f"{tmp_path / name} {words}")
            assert "\n" not in str(caught.value)

    def test_checksum(self, tmp_path, monkeypatch):
        from mmaudio_core.weights import inspect, registry

        torch.save(tiny("vae"), tmp_path / "v")
        assert "of no published file whose MD5 is known" in describe(tmp_path / "v", checksum=True)
        digest = file_digest(tmp_path / "v", "md5")
        known = registry.PublishedFile("v1-44.pth", "vae", "44k", "r", "p", "l", digest)
        monkeypatch.setattr(inspect, "by_md5", lambda md5: known if md5 == digest else None)
        assert f"MD5 {digest}: the published v1-44.pth, unchanged" in describe(tmp_path / "v", checksum=True)


def test_of_equals_the_place_named_first_is_taken_and_a_file_is_a_place(tmp_path):
    """A network of one's own in a published size, beside the published files."""
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
        shutil.copy(EMBEDDED_FILE, tmp_path / name / "parts.safetensors")
    first, second = (tmp_path / name / "parts.safetensors" for name in ("a", "z"))
    variant = next(item.variant for item in find_parts([first]) if item.kind == "flow")
    for places, wanted in (
        ([first.parent, second.parent], first),
        ([second.parent, first.parent], second),
        ([second, first.parent], second),
    ):
        assert choose(find_parts(places), variant)["flow"] == wanted
