"""Lists of files in widgets, and what a chosen name stands for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from .host import TINY, Host
from .made_up import OTHERS, SPECS_44K, weights, write_44k, write_part, write_plain

KINDS = {
    ("LoadModel", "model_file"): "flow",
    ("LoadVAE", "vae_file"): "vae",
    ("LoadVAE", "vocoder_file"): "vocoder",
    ("LoadEncoders", "clip_file"): "clip",
    ("LoadEncoders", "synchformer_file"): "synchformer",
}


def options(host: Host, node: str, name: str) -> list[str]:
    return next(i.options for i in host.nodes[node].define_schema().inputs if i.id == name)


@pytest.fixture(scope="module")
def all_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for index, spec in enumerate((*SPECS_44K.values(), *OTHERS.values())):
        write_part(folder / f"{index}.safetensors", spec)
    return folder


def test_each_list_has_the_files_that_fit(host: Host, all_parts: Path) -> None:
    for file in all_parts.iterdir():
        (host.models / f"part {file.name}").symlink_to(file)
    expected = {"flow": "0", "vae": "1", "vocoder": "2", "synchformer": "3", "clip": "4"}
    for (node, name), kind in KINDS.items():
        listed = options(host, node, name)
        assert listed[:2] == [f"part {expected[kind]}.safetensors", TINY]
        assert listed[2:] == (["none"] if node == "LoadEncoders" else [])


def test_a_family_file_is_in_every_list(host: Host) -> None:
    core = host.of("mmaudio_core.pipeline.files")
    (host.models / "all.safetensors").write_bytes(core.EMBEDDED_FILE.read_bytes())
    for node, name in KINDS:
        assert options(host, node, name)[:2] == ["all.safetensors", TINY]


def test_empty_folders_leave_the_embedded_model(host: Host) -> None:
    for node, name in KINDS:
        assert options(host, node, name)[0] == TINY


def test_junk_never_breaks_a_list(host: Host) -> None:
    folder = host.models
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "noise.pth").write_bytes(bytes(range(256)) * 20)
    (folder / "cut.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{")
    (folder / "text.pt").write_text("not found")
    (folder / "away.ckpt").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("mine")
    (folder / "folder.safetensors").mkdir()
    closed = write_plain(folder / "closed.safetensors", weights(SPECS_44K["vae"]))
    closed.chmod(0)
    write_plain(folder / "other.safetensors", {"a.weight": torch.zeros(3, 3)})
    write_plain(folder / "good.safetensors", weights(SPECS_44K["vae"]))
    listed = options(host, "LoadVAE", "vae_file")
    assert [name for name in listed if name not in ("closed.safetensors",)] == ["good.safetensors", TINY]
    for node, name in KINDS:
        assert TINY in options(host, node, name)


def test_a_search_that_fails_is_logged(host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(folder: str) -> list[str]:
        raise PermissionError("no")

    monkeypatch.setattr(host.fake("folder_paths"), "get_filename_list", fails)
    assert options(host, "LoadModel", "model_file") == [TINY]
    assert options(host, "LoadVariant", "variant")[0] == TINY
    assert options(host, "LoadLoRA", "lora_file") == [""]
    assert "could not be searched" in caplog.text


def test_many_files_are_listed_at_once_and_then_from_memory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_plain(host.tmp / "one.safetensors", weights(SPECS_44K["vae"])).read_bytes()
    for index in range(500):
        (host.models / f"{index:03}.safetensors").write_bytes(one)
    folders, looked_at = host.of("nodes.host.folders"), []
    look_at = folders.look_at
    monkeypatch.setattr(folders, "look_at", lambda path: looked_at.append(path) or look_at(path))
    begun = time.process_time()
    assert len(options(host, "LoadVAE", "vae_file")) == 501
    assert time.process_time() - begun < 2  # a second at most, on a machine that does nothing else
    assert len(looked_at) == 500
    for node, name in KINDS:
        options(host, node, name)
    assert len(looked_at) == 500


def test_a_changed_file_is_looked_at_again(host: Host) -> None:
    file = write_plain(host.models / "a.safetensors", weights(SPECS_44K["vae"]))
    assert options(host, "LoadVAE", "vae_file") == ["a.safetensors", TINY]
    write_part(file, SPECS_44K["vocoder"])
    assert options(host, "LoadVAE", "vae_file") == [TINY]
    assert options(host, "LoadVAE", "vocoder_file") == ["a.safetensors", TINY]


def test_folders_of_extra_model_paths_stay(host: Host) -> None:
    paths = host.fake("folder_paths")
    extra = host.tmp / "elsewhere"
    paths.folder_names_and_paths["mmaudio"] = ([str(extra)], set())
    folders = host.of("nodes.host.folders")
    folders.register()
    folders.register()
    assert folders.folders() == [extra, host.models]
    assert {".safetensors", ".pth"} <= paths.folder_names_and_paths["mmaudio"][1]
    write_44k(extra / "below")
    assert options(host, "LoadModel", "model_file") == ["below/flow_44k.safetensors", TINY]
    assert folders.file_of("below/flow_44k.safetensors", "flow") == extra / "below" / "flow_44k.safetensors"


def test_a_missing_file_is_named_with_its_folder(host: Host) -> None:
    with pytest.raises(
        ValueError, match=r"gone\.safetensors is not in .*mmaudio; a flow network such as .* belongs here"
    ) as caught:
        host.run("LoadModel", model_file="gone.safetensors")
    assert type(caught.value) is ValueError
    assert str(host.models) in str(caught.value)


def test_a_name_cannot_leave_the_folder(host: Host) -> None:
    write_plain(host.tmp / "models" / "out.safetensors", weights(SPECS_44K["vae"]))
    with pytest.raises(ValueError, match="is not in"):
        host.run("LoadVAE", vae_file="../out.safetensors")


@pytest.mark.parametrize(("node", "name", "wrong"), [(*key, kind) for key, kind in KINDS.items()], ids=lambda v: str(v))
def test_a_wrong_file_says_what_it_is_and_what_belongs_there(
    host: Host, all_parts: Path, node: str, name: str, wrong: str
) -> None:
    other = "1" if wrong != "vae" else "2"
    (host.models / "other.safetensors").symlink_to(all_parts / f"{other}.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors is (a|the) .*(VAE|vocoder).*; .* such as .* belongs here\.$"):
        host.run(node, **{name: "other.safetensors"})
