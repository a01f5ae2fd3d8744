"""What the documents promise is there: linked files, commands, options, registry names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmaudio_core.cli import build_parser
from mmaudio_core.weights.registry import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_commands_of_the_readme_parse() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0] for line in text.splitlines() if line.startswith("mmaudio ")]
    assert len(lines) >= 5
    for line in lines:
        words = re.findall(r'"[^"]*"|\S+', line)[1:]
        build_parser().parse_args([word.strip('"') for word in words])


def test_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in DOCUMENTS:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.M):
            assert re.search(rf"^{target}:", makefile, re.M), f"{path.name}: make {target}"


def test_named_files_are_published() -> None:
    names = {file.name for file in PUBLISHED}
    for path in DOCUMENTS:
        for name in re.findall(r"`([\w-]+\.(?:pth|pt|bin))`", path.read_text(encoding="utf-8")):
            assert name in names, f"{path.name}: {name}"
