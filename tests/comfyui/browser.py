"""ComfyUI's own page in Chromium, driven by ``browser.mjs``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

RUNNER = Path(__file__).with_name("browser.mjs")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str:
    """Why no browser can be driven, or "" where one can: node, a Chromium, and playwright-core below PLAYWRIGHT_DIR."""
    folder = os.environ.get("PLAYWRIGHT_DIR")
    if not folder or not (Path(folder) / "node_modules" / "playwright-core").is_dir():
        return f"PLAYWRIGHT_DIR={folder} names no folder with node_modules/playwright-core (npm install playwright-core)"
    if shutil.which("node") is None:
        return "node is not installed"
    if chromium() is None:
        return "no Chromium found; CHROMIUM names one"
    return ""


def chromium() -> str | None:
    """The browser's path."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


def drive(url: str, steps: list[dict[str, Any]], timeout_s: float = 600.0) -> list[dict[str, Any]]:
    """The result of every step of ``browser.mjs`` on one page; ``{"error": ...}`` for a step that failed."""
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({"url": url, "chromium": chromium(), "steps": steps}), encoding="utf-8")
        done = subprocess.run(["node", str(RUNNER), str(job)], capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(f"the browser failed:\n{done.stderr[-3000:]}")
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results
