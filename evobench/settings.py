"""Settings of algorithms and of problems: validated models, changed by name."""

from __future__ import annotations

import reprlib
from typing import Any

from pydantic import BaseModel, ValidationError


class NoSettings(BaseModel):
    """Of what has none."""


def configure(owner: str, defaults: BaseModel, overrides: dict[str, Any]) -> BaseModel:
    """The settings of `owner` with `overrides` applied and validated.

    Raises:
        ValueError: naming the unknown setting or the bad value, and what is allowed.
    """
    known = type(defaults).model_fields
    for key in overrides:
        if key not in known:
            raise ValueError(f"unknown setting {key!r} of {owner}: choose from {', '.join(known) or '(it has none)'}")
    try:
        return type(defaults).model_validate({**defaults.model_dump(), **overrides})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"bad value {shown(problem['input'])} for {owner}.{key}: {problem['msg']}") from error


def shown(value: Any) -> str:
    """A user's value in a message: short and on one line, whatever was given."""
    return f"{reprlib.repr(value):.100}"


def said(error: BaseException) -> str:
    """An exception's message in another: its first line, short and printable, whatever it says; empty if nothing."""
    try:
        text = str(error).strip()
    except Exception:  # a user's exception may fail even at this
        return ""
    line = text.splitlines()[0][:500] if text else ""
    return line if line.isprintable() else ascii(line)
