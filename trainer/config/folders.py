"""What a file that is shared says of the folders on its maker's machine: nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BEGINNING = r"(?:~|[A-Za-z]:)?[\\/]"
_QUOTED = re.compile(rf'"{_BEGINNING}(?:[^"\n]*[\\/])?([^"\\/\n]*)"')
_WHOLE = re.compile(rf"{_BEGINNING}(?:.*[\\/])?([^\\/]*)", re.DOTALL)


def without_folders(toml: str) -> str:
    """The text of a configuration with only the last name of every absolute path."""
    return _QUOTED.sub(r'"\1"', toml)


def without_folders_in(value: Any) -> Any:
    """The same for a configuration's tables, lists and texts; what else there is stays as it is."""
    if isinstance(value, Mapping):
        return {key: without_folders_in(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders_in(inner) for inner in value]
    if isinstance(value, str) and (absolute := _WHOLE.fullmatch(value)):
        return absolute[1]
    return value
