"""Files that are whole or not there, on a disk or behind any fsspec URL (`s3://bucket/results`).

A `Path` of this package is either pathlib's or, for a URL, a `upath.UPath`, which behaves like one.
What pathlib cannot say for both stands here: to write at once, to create once, to touch, to ask the time.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import itertools
import os
import posixpath
import re
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar, cast

URL = re.compile(r"(?:[\w+.-]+::)*[A-Za-z][\w+.-]+://")
"""What begins as `s3://` or, chained, as `simplecache::s3://` does."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _in_os_errors(
    function: Callable[Concatenate[Path, Parameters], Result],
) -> Callable[Concatenate[Path, Parameters], Result]:
    """What a URL's file system raises of its own (no credentials, no network) becomes an OSError."""

    @wraps(function)
    def wrapped(path: Path, /, *args: Parameters.args, **more: Parameters.kwargs) -> Result:
        try:
            return function(path, *args, **more)
        except OSError:
            raise
        except Exception as error:
            if local(path):
                raise
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(path)) from error

    return wrapped


def locate(place: str | Path) -> Path:
    """The path that a text names: of this machine, or of a URL's file system.

    Raises:
        ValueError: if there is no such file system, or its package is not installed.
    """
    if not isinstance(place, str):
        return place
    if place.startswith("file://"):
        return Path(place.removeprefix("file://"))
    if not URL.match(place):
        return Path(place)
    from upath import UPath

    try:
        path = UPath(place, use_listings_cache=False)  # other processes write there, too
        _ = path.fs
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot use '{place}': {str(error).rstrip('.')}") from error
    return cast(Path, path)


def local(path: Path) -> bool:
    """Whether it is a path of this machine, not one behind a URL."""
    return isinstance(path, Path)


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write beside `path`, sync, rename, sync the directory; behind a URL as far as its file system goes.

    Args:
        fill: writes the content to the open file.

    Raises:
        OSError: if the file system refuses (read-only, full).
    """
    if not local(path):
        buffer = io.BytesIO()
        fill(buffer)
        return _put(path, buffer.getvalue())
    hidden = _hidden(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hidden.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        with suppress(OSError):  # not there any more, unless something went wrong
            remove(hidden)


@_in_os_errors
def _put(path: Path, content: bytes) -> None:
    """`write_atomically` behind a URL."""
    hidden = _hidden(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(content)
        hidden.rename(path)
    finally:
        with suppress(OSError):
            remove(hidden)


def _hidden(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@_in_os_errors
def create(path: Path, content: bytes) -> bool:
    """Write a file that is not there yet. Of several processes that try, one succeeds.

    Returns:
        False if it is there already.

    Raises:
        OSError: if the file system refuses, or cannot promise this.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not local(path):
                _remote(path).pipe_file(_key(path), content, mode="create")
                return True
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except FileNotFoundError:  # somebody has removed the directory, which was empty: once more
            continue
        with os.fdopen(descriptor, "wb") as file, suppress(OSError):  # its name alone says something
            file.write(content)
        return True


@_in_os_errors
def touch(path: Path, content: bytes) -> None:
    """Make a file that is there, with this content, as young as one written now.

    Raises:
        OSError: if it is gone, or the file system refuses.
    """
    if local(path):
        os.utime(path)
    elif exists(path):
        _remote(path).pipe_file(_key(path), content)
    else:
        raise FileNotFoundError(str(path))


@_in_os_errors
def dated(path: Path) -> tuple[bytes, float]:
    """The content of a file, and when it was written (seconds, by its file system's clock).

    Raises:
        OSError: if it is gone, or cannot be read.
    """
    if local(path):
        with path.open("rb") as file:  # opened: its age is asked of the server anew
            return file.read(), os.fstat(file.fileno()).st_mtime
    modified = _remote(path).modified(_key(path))
    return path.read_bytes(), modified.replace(tzinfo=modified.tzinfo or UTC).timestamp()


@_in_os_errors
def now(directory: Path) -> float:
    """The time by the clock that stamps the files of a directory, which may not be this machine's (seconds).

    Raises:
        OSError: if nothing can be written there.
    """
    if local(directory):
        with tempfile.TemporaryFile(dir=directory) as file:
            return os.fstat(file.fileno()).st_mtime
    probe = directory / f".clock-{secrets.token_hex(8)}"
    try:
        probe.write_bytes(b"")
        return dated(probe)[1]
    finally:
        with suppress(OSError):
            remove(probe)


@_in_os_errors
def exists(path: Path) -> bool:
    """Whether there is something of that name.

    Raises:
        OSError: if the file system refuses.
    """
    return path.exists()


@_in_os_errors
def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: if it is not there, or the file system refuses.
    """
    return path.read_bytes()


@_in_os_errors
def set_aside(path: Path) -> None:
    """Rename a file to `….corrupt`, numbered if there is one already; nothing if it is gone.

    Raises:
        OSError: if the file system refuses.
    """
    names = (path.with_name(f"{path.name}.corrupt{number or ''}") for number in itertools.count())
    with suppress(FileNotFoundError):
        path.rename(next(name for name in names if not name.exists()))


@_in_os_errors
def nearest(path: Path) -> Path:
    """The path itself or, where there is nothing yet, the nearest directory above it that is there.

    Raises:
        OSError: if the file system refuses.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


@_in_os_errors
def matching(directory: Path, pattern: str) -> list[Path]:
    """The files of a directory whose names match, in order; none if there is no directory.

    By their names alone: globs of fsspec look at each file, leave out what goes meanwhile (so that of a file and the
    one that takes its place they may see neither), and take a directory that cannot be listed for an empty one.

    Raises:
        OSError: if the file system refuses.
    """
    try:
        if local(directory):
            names = [path.name for path in directory.iterdir()]
        else:
            names = [posixpath.basename(key) for key in _remote(directory).ls(_key(directory), detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [directory / name for name in sorted(fnmatch.filter(names, pattern))]


@_in_os_errors
def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        OSError: if the file system refuses.
    """
    path.unlink(missing_ok=True)


def remove_empty(directory: Path) -> None:
    """Remove a directory if there is nothing in it; behind a URL nothing needs to be removed.

    Raises:
        OSError: if there is something in it.
    """
    if local(directory):
        directory.rmdir()


def _remote(path: Any) -> Any:
    """The fsspec file system of a path behind a URL."""
    return path.fs


def _key(path: Any) -> str:
    """What that file system calls it."""
    return str(path.path)
