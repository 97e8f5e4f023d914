"""CRIU, by which runtimes of processes write down what is in memory: whether it is there, and works on this kernel.

Rules of this file: a program is asked once as long as it is the same file; what is not installed is looked for again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.errors import AgentError, MissingTool
from core.process import Launcher, find

WORK: Final = "criu"
"""The folder of a bundle in which CRIU has its logs."""
_SECONDS: Final = 20.0
_MOST_LOG: Final = 4 << 20
_answers: dict[tuple[str, int, int, int], str] = {}
_lock: Final = threading.Lock()
"""One question at a time: who comes second finds the answer."""


def why_not(launcher: Launcher) -> str:
    """Why this node's CRIU is of no use, in words for people; "": `criu check` is content."""
    try:
        path = find("criu")
    except MissingTool as error:
        return f"{error.message}: {error.hint()}"
    return answered(path, lambda: _check(launcher, path))


def answered(path: str, ask: Callable[[], str]) -> str:
    """What `ask()` said the first time, for as long as the program at `path` is the same. Raises as `ask`."""
    seen = os.stat(path)
    mark = (path, seen.st_ino, seen.st_size, seen.st_mtime_ns)
    with _lock:
        if mark not in _answers:
            _answers[mark] = ask()
        return _answers[mark]


def _check(launcher: Launcher, path: str) -> str:
    try:
        said = launcher.run([path, "check"], timeout=_SECONDS)
    except (AgentError, OSError) as error:
        return f"criu does not start: {error}"
    if said.code == 0:
        return ""
    # The last line only says that it failed; the first one says why.
    first = next((line for line in said.stderr.decode("utf-8", "replace").splitlines() if "Error (" in line), "")
    return f"`criu check` fails: {first.partition('): ')[2] or said.complaint()}"


def last_complaint(work: Path) -> str:
    """The last line of CRIU's logs in folder `work` that is an error; "": there is none."""
    found = ""
    for path in sorted(work.glob("*.log")):
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _MOST_LOG))
            lines = log.read(_MOST_LOG).decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if "Error (" in line and not line.endswith("FAILED.")]
        found = errors[-1].partition("Error (")[2] if errors else found
    return f"CRIU: {found.partition('): ')[2] or found}"[:300] if found else ""
