"""Has namespaces made that a thread cannot make, and the first process of a pid namespace held; see `holder`."""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.errors import Failed, TimedOut
from core.process import PIPE, Child, Launcher, ended, kill_group

SECONDS: Final = 20.0
_START: Final = "import sys; sys.path.insert(0, {path!r}); from core.runtime.holder import main; main()"


def hold(launcher: Launcher, flags: int, program: str, made: Callable[[int], None]) -> int | None:
    """Unshare `flags` in a process, call `made` with its number while it waits, then start `program`, if it is not "".

    Returns the number of that first process, which is left in the launcher's group. Raises `Failed` with the process'
    own complaint, `TimedOut`, and what `made` raises; the process is ended in any case.
    """
    argv = [sys.executable, "-I", "-S", "-c", _START.format(path=str(Path(__file__).parents[2])), str(flags), program]
    child = launcher.start(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd="/")
    try:
        _expect(child, "made")
        made(child.pid)
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        first = int(_line(child)) if program else None
        if not ended(child, SECONDS):
            raise TimedOut("the process that makes namespaces does not end")
        return first
    finally:
        kill_group(child)
        for stream in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(BrokenPipeError):  # it ended before it read what we said
                if stream is not None:
                    stream.close()


def _expect(child: Child, word: str) -> None:
    if (said := _line(child)) != word:
        raise Failed(f"making namespaces: {said[:200]}")


def _line(child: Child) -> str:
    assert child.stdout is not None
    if not select.select([child.stdout], [], [], SECONDS)[0]:
        raise TimedOut(f"namespaces were not made within {SECONDS:g} s")
    if line := child.stdout.readline().decode().strip():
        return line
    assert child.stderr is not None
    complaint = child.stderr.read().decode("utf-8", "replace").strip().splitlines()
    raise Failed(f"making namespaces: {complaint[-1] if complaint else 'it ended without a word'}")
