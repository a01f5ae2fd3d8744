"""A real ComfyUI in a subprocess: its own folders, a free port, the pack linked in, driven over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACK = "mmaudio-graph"
STAND_IN = Path(__file__).with_name("stand_in")
UP_WITHIN_S = 240.0
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
    "LiteGraph.Canvas.LowQualityRenderingZoomThreshold": 0,
}


class NodeError(Exception):
    """A prompt that failed; ``node_id``, ``node_type``, ``kind`` and ``message`` as the server gives them."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.node_id, self.node_type = str(details.get("node_id")), str(details.get("node_type"))
        self.message, self.kind = str(details.get("exception_message", details)).strip(), str(details.get("exception_type"))
        self.details = details
        super().__init__(f"{self.node_type}: {self.message}\n{''.join(details.get('traceback', []))[-1500:]}")


@dataclass
class Server:
    """One running ComfyUI. ``base`` holds custom_nodes/, input/, output/, models/, user/."""

    comfy: Path
    python: str
    base: Path
    options: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    packs: dict[str, Path] = field(default_factory=lambda: {PACK: ROOT, "stand-in": STAND_IN})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> Server:
        for name in ("custom_nodes", "input", "output", "models/mmaudio", "models/loras", "user/default"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        for name, source in self.packs.items():
            link = self.base / "custom_nodes" / name
            if not link.exists():
                link.symlink_to(source, target_is_directory=True)
        (self.base / "user/default/comfy.settings.json").write_text(json.dumps(SETTINGS))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        database = self.base / "comfyui.db"
        command = [self.python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--log-stdout"]
        command += ["--base-directory", str(self.base), "--disable-api-nodes", "--disable-auto-launch"]
        command += ["--database-url", f"sqlite:///{database}", *self.options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **self.environment}
        with open(self.base / "server.log", "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.comfy, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )
        self._wait_until_up()
        return self

    def _wait_until_up(self) -> None:
        assert self.process is not None
        end = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped while starting:\n{self.log[-3000:]}")
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not answer within {UP_WITHIN_S:.0f} s:\n{self.log[-3000:]}")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.loads(answer.read())

    def post(self, path: str, values: Any = None) -> tuple[int, Any]:
        body = json.dumps(values if values is not None else {}).encode()
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queues an API prompt and returns its id; raises NodeError when the server refuses it."""
        code, answer = self.post("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})
        if code != 200:
            raise NodeError({"exception_message": json.dumps(answer), "node_type": "refused", **answer})
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout_s: float = 240.0) -> dict[str, Any]:
        """The history entry of a prompt that has ended, however it ended."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry["status"]["status_str"] in ("success", "error"):
                return dict(entry)
            time.sleep(0.05)
        raise TimeoutError(f"the prompt did not end within {timeout_s:.0f} s:\n{self.log[-2000:]}")

    def run(self, prompt: dict[str, Any], timeout_s: float = 240.0) -> dict[str, Any]:
        """Outputs by node id of a prompt that succeeded; raises NodeError for one that did not."""
        entry = self.wait(self.queue(prompt), timeout_s)
        if entry["status"]["status_str"] != "success":
            errors = [text for name, text in entry["status"]["messages"] if name.startswith("execution_")]
            raise NodeError(next((text for text in errors if "exception_message" in text), errors[-1]))
        return dict(entry["outputs"])

    def file(self, result: dict[str, Any]) -> Path:
        """The file that an entry of an output names."""
        return self.base / result["type"] / result["subfolder"] / result["filename"]

    def clear_outputs(self) -> None:
        shutil.rmtree(self.base / "output", ignore_errors=True)
        (self.base / "output").mkdir()


def find_comfy() -> tuple[Path, str] | str:
    """ComfyUI's folder and its Python by COMFYUI_DIR and COMFY_PY, or why they cannot be used."""
    folder, python = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFY_PY")
    if not folder:
        return "COMFYUI_DIR is not set; it names a ComfyUI checkout (and COMFY_PY the Python with its requirements)"
    if not (Path(folder) / "main.py").is_file():
        return f"COMFYUI_DIR={folder} holds no main.py"
    if not python or not Path(python).exists():
        return f"COMFY_PY={python} is not there; it names the Python with ComfyUI's requirements and open_clip_torch"
    return Path(folder), python
