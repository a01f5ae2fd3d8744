"""The pack as ComfyUI loads it, on the fake host, which is in ``sys.path`` and ``sys.modules`` only while a test has it."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
FAKE_HOST = Path(__file__).parent / "fake_host"
PACK = "/x/custom_nodes/mmaudio-graph_x_0"
"""A module name such as ComfyUI gives: the folder's path, with dots replaced."""
PREFIX = "MMAudioGraph"
FAKES = ("comfy", "comfy_api", "comfy_execution", "folder_paths")
TINY = "tiny (embedded)"

_kept: dict[str, ModuleType] = {}


def _is_hosts(name: str) -> bool:
    return name.split(".")[0] in FAKES or name == PACK or name.startswith(f"{PACK}.")


class Host:
    """What a test asks of the host and of the pack in it."""

    def __init__(self, pack: ModuleType, registered: list[Any], tmp: Path) -> None:
        self.pack, self.registered, self.tmp = pack, registered, tmp
        self.models = tmp / "models" / "mmaudio"
        self.loras = tmp / "models" / "loras"
        ids = {node.define_schema().node_id: node for node in registered}
        self.nodes = {node_id.removeprefix(PREFIX): node for node_id, node in ids.items() if node_id.startswith(PREFIX)}

    def of(self, name: str) -> Any:
        """A module of the pack, such as "nodes.host.folders" or "mmaudio_core.types"; not the one that other tests import."""
        return importlib.import_module(f"{PACK}.{name}")

    def fake(self, name: str) -> Any:
        """A module of the fake host."""
        return importlib.import_module(name)

    def run(self, name: str, **inputs: Any) -> Any:
        """What node ``name`` gives for ``inputs``, the widgets' defaults where they are left out, as the host calls it."""
        node = self.nodes[name]
        schema = node.define_schema()
        known = {i.id: i for i in schema.inputs}
        assert not set(inputs) - set(known), f"{name} has no input {set(inputs) - set(known)}"
        given = {i.id: i.default for i in schema.inputs if i.widget and not i.optional}
        given |= inputs
        missing = [i.id for i in schema.inputs if not i.optional and i.id not in given]
        assert not missing, f"{name} lacks {missing}"
        clone = type(node.__name__, (node,), {"hidden": SimpleNamespace(unique_id="1", prompt={}, extra_pnginfo=None)})
        with torch.inference_mode():
            out = clone.execute(**given)
        assert len(out.args) == len(schema.outputs)
        return out

    def components(self, images: torch.Tensor, fps: Any, audio: Any = None) -> Any:
        """A VIDEO without a file."""
        latest = self.fake("comfy_api.latest")
        return latest.InputImpl.VideoFromComponents(latest.Types.VideoComponents(images, fps, audio))

    def file(self, path: Any) -> Any:
        """A VIDEO that is a file."""
        return self.fake("comfy_api.latest").InputImpl.VideoFromFile(path if not isinstance(path, Path) else str(path))


@contextmanager
def fakes() -> Iterator[None]:
    """The fake host's modules can be imported inside, and are gone afterwards, together with the pack's."""
    assert not any(map(_is_hosts, sys.modules)), "a test left a host behind"
    sys.modules.update(_kept)
    sys.path.insert(0, str(FAKE_HOST))
    try:
        yield
    finally:
        sys.path.remove(str(FAKE_HOST))
        _kept.update({name: sys.modules.pop(name) for name in list(sys.modules) if _is_hosts(name)})
        importlib.invalidate_caches()


def load_pack() -> ModuleType:
    """Executes the root ``__init__`` under ``PACK``, once."""
    if PACK not in sys.modules:
        spec = spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        assert spec is not None
        assert spec.loader is not None
        pack = sys.modules[PACK] = module_from_spec(spec)
        spec.loader.exec_module(pack)
    return sys.modules[PACK]


@contextmanager
def running_host(tmp: Path) -> Iterator[Host]:
    """A host with empty model folders below ``tmp``, and the pack registered with it."""
    with fakes():
        folder_paths, management, utils = map(
            importlib.import_module, ("folder_paths", "comfy.model_management", "comfy.utils")
        )
        folder_paths.models_dir, folder_paths.temp_dir = str(tmp / "models"), str(tmp / "temp")
        folder_paths.folder_names_and_paths.clear()
        folder_paths.add_model_folder_path("loras", str(tmp / "models" / "loras"))
        folder_paths.add_model_folder_path("custom_nodes", str(tmp / "custom_nodes"))
        for folder in ("mmaudio", "loras"):
            (tmp / "models" / folder).mkdir(parents=True, exist_ok=True)
        management.loaded.clear()
        management.answers.clear()
        management.interrupted = False
        utils.shown.clear()
        pack = load_pack()
        extension = asyncio.run(pack.comfy_entrypoint())
        yield Host(pack, asyncio.run(extension.get_node_list()), tmp)
