"""Variants: which are offered, which files they take, what is fetched."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.spec.model import VARIANTS

from .host import TINY, Host
from .made_up import SPECS_44K, write_44k, write_part

PUBLISHED = "large_44k_v2"


def test_the_embedded_one_is_first_and_then_the_published_ones(host: Host) -> None:
    variants = host.of("nodes.host.variants")
    assert variants.names() == [TINY, *VARIANTS]
    write_44k(host.models)
    own = SPECS_44K["flow"].variant  # type: ignore[attr-defined]
    assert variants.names() == [TINY, *VARIANTS, own]


@pytest.mark.parametrize("name", [TINY, "tiny"])
def test_the_embedded_variant_needs_no_file(host: Host, name: str) -> None:
    model, vae, encoders = host.run("LoadVariant", variant=name).args
    assert host.of("nodes.host.native_model").flow_of(model).spec.latent_dim == 20
    assert host.of("nodes.host.native_vae").sound_vae_of(vae).module.spec.name == "16k"
    assert encoders.has("clip")
    assert encoders.has("synchformer")
    assert encoders.loaded() == ()


def test_an_own_variant_finds_its_parts(host: Host) -> None:
    files = write_44k(host.models / "mine")
    embedded = host.of("mmaudio_core.pipeline.files").EMBEDDED_FILE
    (host.models / "encoders.safetensors").write_bytes(embedded.read_bytes())
    own = SPECS_44K["flow"].variant  # type: ignore[attr-defined]
    found = host.of("nodes.host.variants").files_of(own, False, "auto")
    assert {kind: path.name for kind, path in found.items()} == {
        **{kind: path.name for kind, path in files.items()},
        "clip": "encoders.safetensors",
        "synchformer": "encoders.safetensors",
    }
    audio = host.run("Generate", pipeline=host.run("LoadPipeline", variant=own)[0], steps=1, duration_s=0.8)[0]
    assert audio["sample_rate"] == 44_100
    assert audio["waveform"].shape == (1, 1, 35_280)


@pytest.mark.parametrize("node", ["LoadVariant", "LoadPipeline"])
def test_missing_files_are_named(host: Host, node: str) -> None:
    with pytest.raises(ValueError, match=f"^For {PUBLISHED} these files were not found: a flow network") as caught:
        host.run(node, variant=PUBLISHED)
    assert type(caught.value) is ValueError
    said = str(caught.value)
    for word in ("mmaudio_large_44k_v2.pth", "v1-44.pth", "bigvgan_generator.pt", "synchformer_state_dict.pth", "open_clip"):
        assert word in said
    assert f"Put them into {host.models}, or set download to yes" in said
    assert "CC-BY-NC" in said
    assert "\n" not in said


def test_an_unknown_variant(host: Host) -> None:
    with pytest.raises(ValueError, match=r"There is no variant 'huge'; choose one of tiny .*, small_16k"):
        host.run("LoadVariant", variant="huge")


@pytest.fixture
def fetched(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(file, folder) of every download; the downloads themselves write nothing that fits."""
    asked: list[Any] = []

    def download(file: Any, folder: Path, **options: Any) -> Path:
        assert options.pop("progress") is False
        assert folder.is_dir()
        asked.append((file, folder))
        for done in (0, 50, 100):
            options["on_bytes"](done, 100)
        options["on_bytes"](7, None)
        return folder / file.name

    monkeypatch.setattr(host.of("mmaudio_core.weights.hub"), "download", download)
    return asked


@pytest.mark.parametrize(("precision", "half"), [("fp32", False), ("auto", False), ("bf16", True)])
def test_what_is_missing_is_fetched(
    host: Host, fetched: list[Any], precision: str, half: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mmaudio"), pytest.raises(ValueError, match="were not found"):
        host.run("LoadVariant", variant=PUBLISHED, download="yes", precision=precision)
    wanted = host.of("mmaudio_core.weights.registry").files_for(PUBLISHED, half=half)
    assert [file for file, _ in fetched] == list(wanted.values())
    assert {folder for _, folder in fetched} == {host.models}
    assert host.fake("comfy.utils").shown[:3] == [(0, 100), (50, 100), (100, 100)]
    for file in wanted.values():
        assert file.name in caplog.text
        assert file.licence in caplog.text


def test_nothing_is_fetched_unless_asked(host: Host, fetched: list[Any]) -> None:
    with pytest.raises(ValueError, match="set download to yes"):
        host.run("LoadVariant", variant=PUBLISHED)
    host.run("LoadVariant", variant=TINY, download="yes")
    assert fetched == []


def test_only_what_is_missing_is_fetched(host: Host, monkeypatch: pytest.MonkeyPatch, fetched: list[Any]) -> None:
    """Part by part: those that are there, under any name, are not fetched again."""
    found, variants = host.of("mmaudio_core.weights.locate").FoundFile, host.of("nodes.host.variants")
    model = host.of("mmaudio_core.spec.model")
    here = [
        found(host.models / "my model.safetensors", "flow", PUBLISHED, model.VARIANTS[PUBLISHED], torch.float32),
        found(host.models / "my vae.safetensors", "vae", "44k", model.VAES["44k"], torch.float32),
    ]
    monkeypatch.setattr(variants.folders, "found_parts", lambda: here)
    with pytest.raises(ValueError, match="were not found: a BigVGAN vocoder"):
        host.run("LoadVariant", variant=PUBLISHED, download="yes")
    assert [file.kind for file, _ in fetched] == ["vocoder", "synchformer", "clip"]


def test_downloads_go_to_the_first_folder(host: Host, fetched: list[Any]) -> None:
    paths = host.fake("folder_paths")
    extra = host.tmp / "elsewhere"
    paths.add_model_folder_path("mmaudio", str(extra), is_default=True)
    with pytest.raises(ValueError, match="were not found"):
        host.run("LoadVariant", variant="small_16k", download="yes")
    assert {folder for _, folder in fetched} == {extra}


def test_interrupting_a_download(host: Host, fetched: list[Any]) -> None:
    management = host.fake("comfy.model_management")
    management.interrupted = True
    with pytest.raises(management.InterruptProcessingException):
        host.run("LoadVariant", variant=PUBLISHED, download="yes")
    assert len(fetched) == 1


def test_own_variants_are_never_fetched(host: Host, fetched: list[Any]) -> None:
    write_part(host.models / "flow.safetensors", SPECS_44K["flow"])
    own = SPECS_44K["flow"].variant  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"For custom .* these files were not found: a mel VAE"):
        host.run("LoadVariant", variant=own, download="yes")
    assert fetched == []
