"""A configuration file, or one of ours by name, with changes from the command line, to a checked value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmaudio_core.errors import DependencyError, InputError

from .checks import check_run
from .schema import RunConfig
from .tables import from_table

PRESETS = Path(__file__).resolve().parents[1] / "configs"
"""The commented files, one a use."""
T = TypeVar("T")


def preset_names() -> list[str]:
    """Names that stand for one of the files in ``trainer/configs``."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_run_config(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """``RunConfig`` from a TOML file or the name of one of ours, with ``section.key=value`` changes; checked.

    Raises:
        InputError: no such file, no TOML, an unknown key, a value of a wrong type, or values that contradict each other.
        DependencyError: on Python 3.10 without the package tomli.
    """
    return load_config(RunConfig, source, overrides, check_run)


def preset_or_path(source: str, folder: Path, names: Sequence[str]) -> str:
    """The file of one of our configurations ``names`` in ``folder``, or ``source`` itself where it is a path.

    Raises:
        InputError: when it is neither.
    """
    if source in names:
        return str(folder / f"{source}.toml")
    if not Path(source).expanduser().exists():
        raise InputError(
            f"There is no configuration {source!r}; give a TOML file, a run's folder or one of {', '.join(names)}."
        )
    return source


def load_config(kind: type[T], source: str, overrides: Sequence[str], check: Callable[[T], None]) -> T:
    """The dataclass ``kind`` from a TOML file or preset, with ``section.key=value`` changes, given to ``check``.

    A run's folder stands for the run in it, wherever it was copied or moved to: ``train.folder`` is that folder.
    """
    path = config_path(source)
    table = read_toml(path)
    section = table.setdefault("train", {})
    if path.parent == Path(source).expanduser() and isinstance(section, dict):
        section["folder"] = str(path.parent)
    for override in overrides:
        _apply(table, override)
    where = path.name if not overrides else f"{path.name} with --set"
    config = from_table(kind, table, where)
    check(config)
    return config


def config_path(source: str) -> Path:
    """A file's path as it is; one of our names without ending as the file in ``trainer/configs``; a run's folder as its own.

    Raises:
        InputError: when there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir() and (path / "config.toml").is_file():
        return path / "config.toml"
    if path.is_file():
        return path
    if source in preset_names():
        return PRESETS / f"{source}.toml"
    raise InputError(
        f"There is no configuration {source!r}; give a TOML file, a run's folder or one of {', '.join(preset_names())}."
    )


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: when it cannot be read or is no TOML.
        DependencyError: on Python 3.10 without the package tomli.
    """
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # both parsers' errors and UnicodeDecodeError
        raise InputError(f"{path} is no TOML: {error}.") from error


def parse_toml(text: str) -> dict[str, Any]:
    """TOML text to tables; a ``ValueError`` of the parser's own where it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise DependencyError("Reading TOML on Python 3.10 needs the package tomli; pip install tomli.") from error
    return tomllib.loads(text)


def _apply(table: dict[str, Any], override: str) -> None:
    """``section.key=value`` into ``table``; a value that is no TOML is a text."""
    name, equals, text = override.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or len(parts) < 2 or not all(parts):
        raise InputError(f"--set {override!r} was given; it takes section.key=value, such as train.steps=1000.")
    inner: Any = table
    for part in parts[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, Mapping):
            raise InputError(f"--set {override!r} was given, but {part} is a value, not a section.")
    inner[parts[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    # Anything that ended the line and began another is a text as well.
    return parsed["value"] if len(parsed) == 1 else text
