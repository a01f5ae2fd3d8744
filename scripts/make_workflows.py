"""Makes ``workflows/`` and the pictures of ``docs/images/`` anew, with a real ComfyUI and its page in Chromium.

    python -m scripts.make_workflows [--only NAME ...] [--nodes] [--url URL]

COMFYUI_DIR, COMFY_PY and PLAYWRIGHT_DIR say where ComfyUI, its Python and playwright-core are; ComfyUI is started with folders
of its own, or a running one with the files of ``make_examples.py`` is used by ``--url``. Make them with the oldest supported
ComfyUI: newer ones read its files, not always the other way round. ``--nodes`` makes the pictures of the nodes alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from tests.comfyui.browser import drive, find_browser
from tests.comfyui.server import PACK, ROOT, Server, find_comfy

from .make_examples import write_examples
from .workflow_sheets import OURS, Sheet, sheets

WORKFLOWS, PICTURES = ROOT / "workflows", ROOT / "docs" / "images"
COLOURS = 256
THUMBNAIL = (480, 360)
UNSTABLE = ("ver", "aux_id")
"""Properties of a node that name the very version of a pack; they would change with every commit."""

PAGE_ONLY = ("audioUI", "upload", "video-preview")
"""Inputs that the page sends and no node reads: players and buttons."""


@contextmanager
def running(url: str | None) -> Iterator[str]:
    """The address of a ComfyUI with the example files."""
    if url:
        yield url.rstrip("/")
        return
    comfy = find_comfy()
    if isinstance(comfy, str):
        raise SystemExit(comfy)
    with tempfile.TemporaryDirectory() as folder:
        write_examples(Path(folder))
        server = Server(*comfy, Path(folder), packs={PACK: ROOT}).start()
        try:
            yield server.url
        finally:
            server.stop()


def forget(url: str) -> None:
    """Lets the server drop its results, so that every node runs and shows what it made."""
    body = json.dumps({"unload_models": False, "free_memory": True}).encode()
    request = urllib.request.Request(f"{url}/free", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).close()


def checked(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for result in results:
        if "error" in result:
            raise SystemExit(result["error"])
    return results


def clean_workflow(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    """The file without what only this session made so."""
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/workflows/{name}"))
    workflow["extra"] = {"ds": {"scale": 0.7, "offset": [60, 120]}}
    for node in workflow["nodes"]:
        for key in UNSTABLE:
            node.get("properties", {}).pop(key, None)
    return workflow


def clean_prompt(prompt: dict[str, Any]) -> dict[str, Any]:
    """The API prompt as a program would write it."""
    for node in prompt.values():
        for name in PAGE_ONLY:
            node["inputs"].pop(name, None)
    return prompt


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def shrink(path: Path) -> None:
    """The PNG with a palette."""
    picture = Image.open(path).convert("RGB")
    picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def write_thumbnail(source: Path, target: Path) -> None:
    """The picture as a small JPEG."""
    picture = Image.open(source).convert("RGB").resize(THUMBNAIL, Image.Resampling.LANCZOS)
    picture.save(target, quality=85, optimize=True)


def make_workflow(url: str, sheet: Sheet) -> None:
    """The two files, the picture and the thumbnail of one sheet."""
    asked = {"name": sheet.name, "prompt": sheet.prompt, "columns": sheet.columns}
    asked |= {"note": sheet.note, "note_height": sheet.note_height}
    made = checked(drive(url, [{"do": "make", "sheet": asked}]))[0]
    workflow = clean_workflow(made["workflow"], sheet.name)
    write_json(WORKFLOWS / f"{sheet.name}.json", workflow)
    write_json(WORKFLOWS / "api" / f"{sheet.name}.json", clean_prompt(made["api"]))
    forget(url)
    picture, part = PICTURES / "workflows" / f"{sheet.name}.png", WORKFLOWS / f"{sheet.name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    steps = [
        {"do": "load", "workflow": workflow, "name": sheet.name},
        {"do": "run"},
        {"do": "picture", "out": str(picture)},
        {"do": "picture", "out": str(part), "ids": sheet.shown, "aspect": THUMBNAIL[0] / THUMBNAIL[1]},
    ]
    run = checked(drive(url, steps))[1]
    if run["status"] != "execution_success":
        raise SystemExit(f"{sheet.name}: {run['status']} {run['detail']}")
    write_thumbnail(part, WORKFLOWS / f"{sheet.name}.jpg")
    part.unlink()
    shrink(picture)
    print(f"{sheet.name}: {len(workflow['nodes'])} nodes, picture {picture.stat().st_size // 1000} kB")


def make_node_pictures(url: str) -> None:
    """A picture of every node of the pack, alone."""
    with urllib.request.urlopen(f"{url}/object_info", timeout=60) as answer:
        kinds = sorted(kind for kind in json.loads(answer.read()) if kind.startswith(OURS))
    folder = PICTURES / "nodes"
    folder.mkdir(parents=True, exist_ok=True)
    checked(drive(url, [{"do": "node", "type": kind, "out": str(folder / f"{kind}.png")} for kind in kinds]))
    for kind in kinds:
        shrink(folder / f"{kind}.png")
    print(f"{len(kinds)} nodes pictured")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="names of workflows; all without it")
    parser.add_argument("--nodes", action="store_true", help="only the pictures of the nodes")
    parser.add_argument("--url", help="a running ComfyUI instead of one of our own")
    given = parser.parse_args()
    if why := find_browser():
        raise SystemExit(why)
    with running(given.url) as url:
        for sheet in sheets():
            if not given.nodes and (not given.only or sheet.name in given.only):
                make_workflow(url, sheet)
        if given.nodes or not given.only:
            make_node_pictures(url)


if __name__ == "__main__":
    main()
