"""The shared workflows as files: complete, tidy, and of nodes and inputs that both formats agree on."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
PICTURES = ROOT / "docs" / "images"
NOTES = {"MarkdownNote"}
TITLE_PX, MAX_THUMBNAIL, MAX_PICTURE, MAX_NODE_PICTURE = 30, 60_000, 250_000, 40_000


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))


def test_there_are_workflows() -> None:
    assert len(NAMES) >= 8
    assert not (ROOT / "example_workflows").exists(), "ComfyUI serves only one of the two folders"


@pytest.mark.parametrize("name", NAMES)
def test_workflow_is_complete(name: str) -> None:
    assert 0 < (WORKFLOWS / f"{name}.jpg").stat().st_size < MAX_THUMBNAIL
    assert 0 < (PICTURES / "workflows" / f"{name}.png").stat().st_size <= MAX_PICTURE
    assert name in (WORKFLOWS / "README.md").read_text(encoding="utf-8")
    workflow, prompt = read(name), json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    nodes = {str(node["id"]): node["type"] for node in workflow["nodes"] if node["type"] not in NOTES}
    assert nodes == {node_id: node["class_type"] for node_id, node in prompt.items()}
    assert any(node["type"] in NOTES for node in workflow["nodes"])
    assert all(node["mode"] == 0 for node in workflow["nodes"])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps(name: str) -> None:
    boxes = [
        (f"{node['type']} {node['id']}", node["pos"][0], node["pos"][1] - TITLE_PX, node["size"][0], node["size"][1] + TITLE_PX)
        for node in read(name)["nodes"]
    ]
    for (first, x, y, w, h), (second, x2, y2, w2, h2) in combinations(boxes, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y, f"{first} and {second}"


@pytest.mark.parametrize("name", NAMES)
def test_links_are_those_of_the_prompt(name: str) -> None:
    workflow, prompt = read(name), json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    inputs = {node["id"]: node.get("inputs", []) for node in workflow["nodes"]}
    drawn = {(str(to), inputs[to][slot]["name"]): [str(source), output] for _, source, output, to, slot, _ in workflow["links"]}
    written = {
        (node_id, name): value
        for node_id, node in prompt.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }
    assert drawn == written


@pytest.mark.parametrize("path", sorted((PICTURES / "nodes").glob("*.png")), ids=lambda p: p.stem)
def test_node_pictures_are_small(path: Path) -> None:
    assert 0 < path.stat().st_size <= MAX_NODE_PICTURE


def test_every_node_has_its_picture() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "nodes").glob("*.py"))
    kinds = re.findall(r'node_id=f"\{sockets\.PREFIX\}(\w+)"', sources)
    assert len(kinds) >= 17
    for kind in kinds:
        assert (PICTURES / "nodes" / f"MMAudioGraph{kind}.png").is_file(), kind


def test_every_node_is_in_a_workflow() -> None:
    """All but the legacy ones and Load Pipeline, which only several all-in-one nodes need."""
    used = {node["type"] for name in NAMES for node in read(name)["nodes"]}
    pictured = {path.stem for path in (PICTURES / "nodes").glob("*.png") if "Legacy" not in path.stem}
    assert pictured - used == {"MMAudioGraphLoadPipeline"}
