from __future__ import annotations

import pytest

from mmaudio_core.errors import InputError
from mmaudio_core.spec.model import PART_KINDS, VARIANTS
from mmaudio_core.weights import registry


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_needs_one_file_of_each_kind(variant):
    files = registry.files_for(variant)
    assert set(files) == set(PART_KINDS)
    assert all(file.kind == kind for kind, file in files.items())
    assert files["flow"].name == f"mmaudio_{variant}.pth"
    assert files["vocoder"].name == ("best_netG.pt" if variant.endswith("16k") else "bigvgan_generator.pt")
    assert files["vae"].name == ("v1-16.pth" if variant.endswith("16k") else "v1-44.pth")


def test_half_takes_the_float16_copies_where_there_are_any():
    files = registry.files_for("large_44k_v2", half=True)
    assert files["flow"].name == "mmaudio_large_44k_v2_fp16.safetensors"
    assert files["vocoder"].name == "bigvgan_generator.pt"
    assert registry.files_for("medium_44k", half=True)["flow"].name == "mmaudio_medium_44k.pth"


def test_an_unknown_variant_is_refused():
    with pytest.raises(InputError, match="no published variant 'huge'; known are small_16k"):
        registry.files_for("huge")
    with pytest.raises(InputError, match=r"No published file is called 'x.pth'"):
        registry.published("x.pth")


def test_names_are_unique_and_licences_are_said():
    names = [file.name for file in registry.PUBLISHED]
    assert len(set(names)) == len(names)
    assert registry.published("mmaudio_small_16k.pth").licence.startswith("CC-BY-NC 4.0")
    assert registry.published("bigvgan_generator.pt").licence == "MIT"
    assert "Apple" in registry.published("apple_DFN5B-CLIP-ViT-H-14-384_fp16.safetensors").licence


def test_checksums_and_urls():
    file = registry.by_md5("01AD4464F049B2D7EFDAA4C1A59B8DFE")
    assert file is not None
    assert file.name == "mmaudio_large_44k_v2.pth"
    assert file.url == "https://huggingface.co/hkchengrex/MMAudio/resolve/main/weights/mmaudio_large_44k_v2.pth"
    assert registry.published("v1-44.pth").url.endswith("/ext_weights/v1-44.pth")
    assert registry.by_md5("0" * 32) is None
    known = [file.md5 for file in registry.PUBLISHED if file.md5]
    assert len(known) == len(set(known)) == 9
    assert all(len(md5) == 32 and int(md5, 16) >= 0 for md5 in known)


def test_a_part_has_the_licence_that_its_file_says():
    said = {"licence": "CC0", "licences": {"vae": "MIT", "clip": ""}}
    assert [registry.licence_of(said, kind) for kind in ("vae", "clip", "flow")] == ["MIT", "CC0", "CC0"]
    assert registry.licence_of({"licences": {"vae": "MIT"}}, "clip") == registry.APPLE
    assert registry.licence_of({}, "vae") == registry.licence_of({"licences": None}, "vae") == registry.CC_BY_NC
