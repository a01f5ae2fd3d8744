"""The pack in a host: what it registers, and that it does nothing anywhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .host import FAKE_HOST, ROOT, Host, _is_hosts, running_host

OLD_IDS = {"MMAudioModelLoader", "MMAudioVoCoderLoader", "MMAudioFeatureUtilsLoader", "MMAudioSampler"}
"""Of another pack; answered only where that one is absent, as it is here."""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def test_ids_are_our_own(host: Host) -> None:
    ids = [node.define_schema().node_id for node in host.registered]
    own = [node_id for node_id in ids if node_id.startswith("MMAudioGraph")]
    assert len(ids) == len(set(ids))
    assert len(own) >= 17
    assert set(ids) - set(own) <= OLD_IDS
    assert not set(ids) & {"EmptyLatentAudio", "VAEDecodeAudio", "VAEEncodeAudio", "KSampler"}


def test_every_node_explains_itself(host: Host) -> None:
    for name, node in host.nodes.items():
        schema = node.define_schema()
        assert schema.category.startswith("MMAudio Graph/"), name
        assert schema.display_name.startswith("MMAudio: "), name
        assert len(schema.description) > 40, name
        assert schema.outputs, name
        for given in schema.inputs:
            if given.io_type in WIDGETS:
                assert len(given.tooltip or "") > 10, f"{name}.{given.id} has no tooltip"
        for output in schema.outputs:
            assert output.display_name, name


def test_the_defaults_are_within_their_bounds(host: Host) -> None:
    for name, node in host.nodes.items():
        for given in node.define_schema().inputs:
            if given.io_type in ("INT", "FLOAT"):
                assert given.min <= given.default <= given.max, f"{name}.{given.id}"


def test_execute_takes_what_the_schema_names(host: Host) -> None:
    import inspect

    for name, node in host.nodes.items():
        parameters = inspect.signature(node.execute).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        wanted = {given.id: given.optional for given in node.define_schema().inputs}
        assert set(parameters) == set(wanted), name
        for given, optional in wanted.items():
            assert optional == (parameters[given].default is not inspect.Parameter.empty), f"{name}.{given}"


def test_the_fake_host_is_as_strict_as_the_oldest(host: Host) -> None:
    io = host.fake("comfy_api.latest").io
    with pytest.raises(TypeError):
        io.Schema(node_id="a", search_aliases=["b"])
    with pytest.raises(TypeError):
        io.Float.Input("a", advanced=True)
    with pytest.raises(TypeError):
        io.Custom("A").Input("a", default=1)


def test_nodes_keep_no_state(host: Host) -> None:
    with pytest.raises(AttributeError, match="keeps no state"):
        host.nodes["Sampler"].cache = {}


def test_the_entry_names_its_web_folder(host: Host) -> None:
    assert host.pack.WEB_DIRECTORY == "./web"
    assert not hasattr(host.pack, "NODE_CLASS_MAPPINGS")  # where both are, ComfyUI passes over the V3 nodes


def test_nothing_of_the_host_stays(tmp_path: Path) -> None:
    with running_host(tmp_path):
        assert any(map(_is_hosts, sys.modules))
    assert not any(map(_is_hosts, sys.modules))
    assert str(FAKE_HOST) not in sys.path


def python(code: str, *paths: Path) -> str:
    """What ``code`` prints in a fresh process with ``paths`` first in sys.path."""
    code = f"import sys; sys.path[:0] = {[str(p) for p in paths]!r}\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent).stdout


LOAD = f"""
import asyncio, sys
from importlib.util import module_from_spec, spec_from_file_location
name = "/x/custom_nodes/mmaudio-graph"
spec = spec_from_file_location(name, {str(ROOT / "__init__.py")!r}, submodule_search_locations=[{str(ROOT)!r}])
sys.modules[name] = pack = module_from_spec(spec)
spec.loader.exec_module(pack)
"""
LIST = """
import folder_paths
folder_paths.models_dir = "/nowhere"
folder_paths.add_model_folder_path("custom_nodes", "/nowhere")
extension = asyncio.run(pack.comfy_entrypoint())
nodes = asyncio.run(extension.get_node_list())
print(sum(node.define_schema().node_id.startswith("MMAudioGraph") for node in nodes))
"""


def test_without_a_host_the_root_does_nothing() -> None:
    out = python(f"{LOAD}\nprint(hasattr(pack, 'comfy_entrypoint'), 'torch' in sys.modules, len(sys.modules) < 200)")
    assert out.split() == ["False", "False", "True"]


def test_it_registers_with_optional_packages_broken(tmp_path: Path, host: Host) -> None:
    """Each raises at import; every node is there all the same, and nothing has even tried to load them."""
    for name in ("torchaudio", "torchvision", "open_clip", "av", "huggingface_hub", "safetensors", "transformers"):
        (tmp_path / f"{name}.py").write_text(f"print('{name} was tried')\nraise OSError('{name} is broken here')")
    assert python(LOAD + LIST, tmp_path, FAKE_HOST).split() == [str(len(host.nodes))]
