"""The folder tree is the dependency order, and this checks it: no upward import, no cycle, no ComfyUI below the nodes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "mmaudio_core"
# Folders and files of the core, lowest level first; a level may import lower ones, and siblings do not import each other.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "version"),
    ("spec",),
    ("types", "devices"),
    ("kernels", "attention"),
    ("layers", "media", "sampling"),
    ("features", "transformer", "autoencoder", "vocoder", "metrics"),
    ("weights",),
    ("pipeline",),
    ("bench",),
    ("cli",),
    ("__main__",),
)
TRAINER_LEVELS: tuple[tuple[str, ...], ...] = (
    ("config", "engine"),
    ("data", "ema", "lora"),
    ("extract", "flow", "world", "adversarial", "contrastive"),
    ("export", "score"),
    ("prove",),
    ("cli",),
    ("__main__",),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
HOST_NAMES = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes"}
HEAVY = ("torch", "triton", "torchaudio", "torchvision", "av", "open_clip", "numpy", "huggingface_hub", "safetensors", "tqdm")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60


def sources(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else []


def imports(path: Path, tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Every imported module as a tuple of names from the repository root, relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            if node.module:
                yield module
            else:
                yield from ((*module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", sources("mmaudio_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = path.relative_to(CORE).with_suffix("").parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "mmaudio_core" for alias in node.names), "core imports itself relatively"
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] != "mmaudio_core", "core imports itself relatively"
    if parts != ("__init__",):
        own = parts[0]
        assert own in LEVEL_OF, f"{own} has no level yet: add it to LEVELS"
        for module in imports(path, tree):
            if module[0] == "mmaudio_core" and len(module) > 1 and module[1] != own:
                assert LEVEL_OF[module[1]] < LEVEL_OF[own], f"{own} may not import {'.'.join(module)}"
    check_sizes(text, tree)


TRAINER_LEVEL_OF = {name: level for level, names in enumerate(TRAINER_LEVELS) for name in names}


@pytest.mark.parametrize("path", sources("trainer"), ids=lambda p: str(p.relative_to(ROOT)))
def test_trainer_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    check_sizes(text, tree)
    for module in absolute_imports(tree):
        assert module[0] not in {"trainer", "nodes", "tests"}, "the trainer imports itself relatively, and nothing above it"
    parts = path.relative_to(ROOT / "trainer").with_suffix("").parts
    if parts == ("__init__",):
        return
    own = parts[0]
    assert own in TRAINER_LEVEL_OF, f"{own} has no level yet: add it to TRAINER_LEVELS"
    for module in imports(path, tree):
        if module[0] == "trainer" and len(module) > 1 and module[1] != own:
            assert TRAINER_LEVEL_OF[module[1]] < TRAINER_LEVEL_OF[own], f"{own} may not import {'.'.join(module)}"


NODE_FILES = [ROOT / "__init__.py", *sources("nodes")]
PRIVATE = {"conds", "latent_formats", "model_base", "model_sampling", "ops", "sd", "supported_models_base"}
"""Modules of comfy that promise nothing; nodes/host/native_*.py build on them and nothing else does."""


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_node_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    check_sizes(text, tree)
    parts = path.relative_to(ROOT).parts
    in_host = parts[:2] == ("nodes", "host")
    for module in absolute_imports(tree):
        assert module[0] not in {"nodes", "mmaudio_core", "trainer", "tests", "scripts"}, "the pack imports itself relatively"
        if module[0] in HOST_NAMES:
            assert in_host or (parts[0] == "nodes" and module == ("comfy_api", "latest")), (
                f"{'.'.join(module)} belongs in nodes/host"
            )
            assert module[0] != "comfy_api" or module == ("comfy_api", "latest"), "only comfy_api.latest is meant for packs"
        private = module[0] == "comfy" and PRIVATE & set(module[1:])
        assert not private or parts[-1].startswith("native_"), f"only nodes/host/native_*.py build on {'.'.join(module)}"
    for module in imports(path, tree):
        assert module[0] not in {"trainer", "tests"}, f"nodes do not import {module[0]}"
        assert not in_host or module[0] != "nodes" or module[1:2] == ("host",), "nodes/host does not import the nodes"
    top = {module[0] for module in absolute_imports(ast.Module(body=at_import(tree.body), type_ignores=[]))}
    assert not top & (set(HEAVY) - {"torch"}), "nothing heavy at import"


def absolute_imports(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Every module that is imported by its full name, with the submodules that ``from`` takes out of comfy."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [alias.name for alias in node.names] if node.module == "comfy" else []
            yield (*node.module.split("."), *names)


def at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that run when the module is imported, classes' and conditions' bodies included."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        inner = [s for name in ("body", "orelse", "handlers", "finalbody") for s in getattr(node, name, [])]
        found += at_import(inner) if inner else [node]
    return found


def check_sizes(text: str, tree: ast.AST) -> None:
    assert text.count("\n") <= MAX_FILE_LINES, "a file is one thing"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("package", ["mmaudio_core", "trainer"])
def test_nothing_below_the_nodes_knows_comfyui(package: str) -> None:
    above = HOST_NAMES | ({"trainer"} if package == "mmaudio_core" else set())
    for path in sources(package):
        for module in imports(path, ast.parse(path.read_text(encoding="utf-8"))):
            assert module[0] not in above, f"{path.relative_to(ROOT)} imports {'.'.join(module)}"


@pytest.mark.parametrize("package", ["mmaudio_core", "trainer"])
def test_no_cycles(package: str) -> None:
    graph: dict[str, set[str]] = {}
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in sources(package)}
    for path in sources(package):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        runtime = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
        wanted = {".".join(m) for m in imports(path, ast.Module(body=runtime, type_ignores=[]))}
        graph[name] = {w for w in wanted if w in known and w != name}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    "module",
    ["mmaudio_core", "mmaudio_core.cli", "mmaudio_core.spec.model", "mmaudio_core.types", "trainer.cli"],
)
def test_import_takes_nothing_heavy_with_it(module: str) -> None:
    commands = "; trainer.cli.build_parser()" if module == "trainer.cli" else ""
    code = f"import sys, {module}{commands}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_core_imports_with_every_optional_package_broken(tmp_path: Path) -> None:
    """Each of them raises at import; all modules still import but the Triton kernels, which are imported where Triton works."""
    broken = ("torchaudio", "open_clip", "av", "huggingface_hub", "safetensors", "torchvision", "triton")
    for name in broken:
        (tmp_path / f"{name}.py").write_text(f"raise OSError('{name} is broken here')")
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in sources("mmaudio_core")]
    wanted = [n for n in names if not n.endswith("__main__") and not n.startswith("mmaudio_core.kernels.triton.")]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport importlib\nfor n in {wanted!r}: importlib.import_module(n)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
