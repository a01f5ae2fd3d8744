"""Whether the other MMAudio pack is found among the packs of a host."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from .host import Host

TEXT = 'NODE_CLASS_MAPPINGS = {"MMAudioFeatureUtilsLoader": None}\n'
OLD_IDS = {"MMAudioModelLoader", "MMAudioVoCoderLoader", "MMAudioFeatureUtilsLoader", "MMAudioSampler"}


def write(path: Path, text: str = TEXT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def taken(host: Host) -> set[str]:
    """The old ids that our pack registers."""
    import asyncio

    nodes = asyncio.run(asyncio.run(host.pack.comfy_entrypoint()).get_node_list())
    return {node.define_schema().node_id for node in nodes} & OLD_IDS


@pytest.mark.parametrize("file", ["aaa/__init__.py", "zzz/__init__.py", "My MMAudio fork/nodes.py"])
def test_a_pack_that_names_the_nodes_keeps_its_ids(host: Host, file: str) -> None:
    assert taken(host) == OLD_IDS
    write(host.tmp / "custom_nodes" / file)
    assert not taken(host)


@pytest.mark.parametrize(
    "file",
    [
        ".disabled/other/__init__.py",
        "other.disabled/__init__.py",
        "other.DISABLED/nodes.py",
        ".other/__init__.py",
        "__pycache__/__init__.py",
        "other/README.md",
        "other/deep/nodes.py",
        "other.py",
        "__init__.py",
    ],
)
def test_what_is_no_pack_or_is_switched_off_does_not_count(host: Host, file: str) -> None:
    write(host.tmp / "custom_nodes" / file)
    assert taken(host) == OLD_IDS


def test_our_own_folder_does_not_count_even_through_a_link(host: Host) -> None:
    old_pack, own = host.of("nodes.host.old_pack"), host.tmp / "own"
    write(own / "nodes.py")
    packs = host.tmp / "custom_nodes"
    packs.mkdir()
    (packs / "mmaudio-graph").symlink_to(own, target_is_directory=True)
    assert old_pack.lies_in([packs])
    assert not old_pack.lies_in([packs], own)
    assert Path(__file__).resolve().parents[2] == old_pack.OWN_FOLDER


def test_ids_that_are_registered_already_count_unless_they_are_ours(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("nodes")
    module.NODE_CLASS_MAPPINGS = {}
    monkeypatch.setitem(sys.modules, "nodes", module)
    assert taken(host) == OLD_IDS
    ours = host.of("nodes.legacy").aliases()
    module.NODE_CLASS_MAPPINGS.update({node.define_schema().node_id: node for node in ours})
    assert taken(host) == OLD_IDS, "a host that loads us again"
    module.NODE_CLASS_MAPPINGS["MMAudioSampler"] = type("Other", (), {})
    assert not taken(host)


def test_files_that_cannot_be_read_are_passed_over(host: Host) -> None:
    packs = host.tmp / "custom_nodes"
    (packs / "folder" / "__init__.py").mkdir(parents=True)
    (packs / "dangling").symlink_to(packs / "nowhere")
    (packs / "turning").symlink_to(packs / "turning")
    write(packs / "odd" / "__init__.py", "")
    (packs / "odd" / "__init__.py").write_bytes(b"\xff\xfe\x00")
    assert not host.of("nodes.host.old_pack").lies_in([packs, host.tmp / "none", packs / "odd" / "__init__.py"])


def test_when_it_cannot_be_found_out_the_ids_are_left_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SimpleNamespace(get_folder_paths=lambda name: 1 / 0)
    monkeypatch.setitem(sys.modules, "folder_paths", broken)
    assert host.of("nodes.host.old_pack").present()


def test_two_hundred_packs_take_no_time(host: Host) -> None:
    packs = host.tmp / "custom_nodes"
    for number in range(200):
        write(packs / f"pack{number}" / "__init__.py", "# nothing\n" * 400)
        write(packs / f"pack{number}" / "nodes.py", "# nothing\n" * 8000)
    old_pack = host.of("nodes.host.old_pack")
    old_pack.lies_in([packs])
    took = []
    for _ in range(3):
        start = time.perf_counter()
        assert not old_pack.lies_in([packs])
        took.append(time.perf_counter() - start)
    assert min(took) < 0.3, "30 ms are usual; ten times that on a busy machine"
    print(f"{min(took) * 1000:.1f} ms")
