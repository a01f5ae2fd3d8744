"""Model folders. ``models_dir`` and ``temp_dir`` are set by the test."""

from __future__ import annotations

import os

models_dir = ""
temp_dir = ""
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path not in paths:
        paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    return list(folder_names_and_paths[folder_name][0])


def get_filename_list(folder_name: str) -> list[str]:
    folders, endings = folder_names_and_paths[folder_name]
    names = set()
    for folder in folders:
        for where, _, files in os.walk(folder, followlinks=True):
            names |= {os.path.relpath(os.path.join(where, file), folder) for file in files}
    return sorted(name for name in names if not endings or os.path.splitext(name)[1].lower() in endings)


def get_full_path(folder_name: str, filename: str) -> str | None:
    for folder in folder_names_and_paths.get(folder_name, ([], set()))[0]:
        path = os.path.join(folder, os.path.relpath(os.path.join("/", filename), "/"))
        if os.path.isfile(path):
            return path
    return None


def get_temp_directory() -> str:
    return temp_dir
