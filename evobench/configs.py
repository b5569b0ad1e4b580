"""Configs as files: those that come with the package, what they ask, what they contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def asked(path: Path) -> str:
    """What a config asks: its first line, if that is a comment."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""


def shipped_configs() -> Path:
    """The directory of the configs that come with the package; in a checkout, the checkout's."""
    package = Path(__file__).parent
    return next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), package)


def find_config(path: Path) -> Path:
    """The file; or, where there is none, the shipped config of that name (`figure1`, `configs/figure1.yaml`)."""
    for shipped in shipped_configs().glob("*.yaml"):
        if str(path) in (shipped.stem, shipped.name, str(Path("configs", shipped.name))) and not path.is_file():
            return shipped
    return path


def read_config(path: Path) -> dict[str, Any]:
    """The content of a YAML file, or of a shipped config; the experiment's name is the file's unless it gives one.

    Raises:
        ValueError: if the file is not there, not YAML, or not a mapping.
    """
    name, path = repr(str(path)), find_config(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path at all
        raise ValueError(f"cannot read the config {name}: {getattr(error, 'strerror', None) or error}") from error
    try:
        content = yaml.safe_load(text)
    except Exception as error:  # PyYAML's constructors also raise KeyError, IndexError, RecursionError
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"the config {name} is not YAML{where}: {' '.join(str(problem or error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"the config {name} is not a mapping of keys to values")
    return {"name": path.stem, **content}
