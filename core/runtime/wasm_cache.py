"""Compiled modules, kept by what they were compiled from: a module is compiled once, in a process of its own.

Rules of this file: a name is `<sha256 of the module>-<version of the engine>-<sha256 of what is in the file>`; a file
is given out only after it was hashed again, and by descriptor, since what is loaded is machine code. The folder is
0700; it holds at most `MOST_BYTES`, the longest unused go first. Losing all of it costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from core import fsio
from core.errors import Invalid, MissingTool, OverLimit, TimedOut
from core.process import Launcher

MOST_BYTES: Final = 256 << 20
MOST_MODULE: Final = 128 << 20
COMPILE_SECONDS: Final = 30.0
_MAGIC: Final = b"\0asm"
_NAME: Final = re.compile(r"(?P<key>[0-9a-f]{64}-[\w.]+)-(?P<sum>[0-9a-f]{64})")


def version() -> str:
    """The engine's version, without importing it; raises `MissingTool`."""
    found = next(iter(sorted(_home().glob("wasmtime-*.dist-info"))), None)
    return "0" if found is None else found.name.removeprefix("wasmtime-").removesuffix(".dist-info")


def _home() -> Path:
    spec = find_spec("wasmtime")
    if spec is None or spec.origin is None:
        raise MissingTool("wasmtime", "python3-wasmtime")
    return Path(spec.origin).parents[1]


def command(module: str, function: str, *words: str) -> list[str]:
    """The command line of one of our own processes: an isolated interpreter that finds us and the engine."""
    paths = list(dict.fromkeys((str(Path(__file__).parents[2]), str(_home()))))
    start = f"import sys; sys.path[:0] = {paths!r}; from {module} import {function}; {function}()"
    return [sys.executable, "-I", "-S", "-c", start, *words]


class ModuleCache:
    """The cache in `folder`."""

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self._folder = folder
        self._launcher = launcher

    def compiled(self, module: Path) -> int:
        """A descriptor of `module`, compiled; the caller closes it.

        Raises `Invalid` for what is no module, `OverLimit` for what takes too long or too much to compile,
        `MissingTool`, `OSError`.
        """
        with open(module, "rb") as source:
            if source.read(4) != _MAGIC:
                raise Invalid("it is not a WASM module", advice="Name the .wasm file: `command`, or another image.")
            source.seek(0)
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        key = f"{digest}-{version()}_{platform.machine()}"
        fsio.make_private(self._folder)
        for found in self._folder.glob(f"{key}-*"):
            with contextlib.suppress(FileNotFoundError):  # another engine's bound has just let it go
                if (fd := _verified(found)) is not None:
                    os.utime(found)
                    return fd
                found.unlink()
        return self._compile(module, key)

    def _compile(self, module: Path, key: str) -> int:
        with fsio.staging(self._folder) as work:
            target = work / "module"
            argv = command("core.runtime.wasm_engine", "main_compile", str(module), str(target))
            try:
                done = self._launcher.run(argv, timeout=COMPILE_SECONDS)
            except TimedOut:
                raise OverLimit(f"the module was not compiled within {COMPILE_SECONDS:g} s") from None
            if done.code == 1:
                raise Invalid(f"the module cannot be compiled: {done.complaint()}", advice="Build it anew.")
            if done.code != 0:
                raise OverLimit("compiling the module took more memory than it may", advice="Split the module.")
            with open(target, "rb") as made:
                total = hashlib.file_digest(made, "sha256").hexdigest()
            fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            os.rename(target, self._folder / f"{key}-{total}")
        self._bound()
        return fd

    def _bound(self) -> None:
        """Remove the longest unused while there is too much."""
        fsio.sweep_staging(self._folder)
        seen = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):  # another engine removed it
                if _NAME.fullmatch(entry.name):
                    seen.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        total = 0
        for _, size, path in sorted(seen, reverse=True):
            total += size
            if total > MOST_BYTES:
                Path(path).unlink(missing_ok=True)


def _verified(path: Path) -> int | None:
    """The file, opened, when it still is what its name says."""
    named = _NAME.fullmatch(path.name)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(os.dup(fd), "rb") as source:
        whole = named is not None and hashlib.file_digest(source, "sha256").hexdigest() == named["sum"]
    if whole:
        return fd
    os.close(fd)
    return None
