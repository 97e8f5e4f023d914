"""Runs the commands of hooks, each in a thread of its own while it lasts, and remembers how they ended.

Rules of this file: nothing here is durable. A hook that an engine's end cut off is run again by the next engine, which
learns from the store which have ended well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from core.errors import AgentError
from core.runtime.table import RuntimeTable
from reconciler.decide.facts import HookSeen
from reconciler.model.identity import Key

Run = Callable[[str, Sequence[str], float], str]
"""Runs a command in a task, for so many seconds; what was wrong, "" for nothing. Raises `AgentError`, `OSError`."""


class Hooks:
    """`changed(key)` is called when a hook has ended; it is quick and does not raise."""

    def __init__(self, run: Run, changed: Callable[[Key], None]) -> None:
        self._run = run
        self._changed = changed
        self._seen: dict[tuple[str, str], HookSeen] = {}

    def start(self, key: Key, task: str, role: str, args: Sequence[str], timeout: float) -> None:
        """Begin to run a hook of a task; nothing when that one is known already."""
        if (task, role) in self._seen:
            return
        self._seen[task, role] = HookSeen()
        work = (key, task, role, tuple(args), timeout)
        threading.Thread(target=self._work, args=work, name="hook", daemon=True).start()

    def _work(self, key: Key, task: str, role: str, args: Sequence[str], timeout: float) -> None:
        try:
            fault = self._run(task, args, timeout)
        except (AgentError, OSError) as error:
            fault = str(error)[:200]
        if (task, role) in self._seen:
            self._seen[task, role] = HookSeen(True, fault)
        self._changed(key)

    def seen(self, tasks: Sequence[str]) -> Mapping[tuple[str, str], HookSeen]:
        """What is known of the hooks of these tasks."""
        return {place: seen for place, seen in list(self._seen.items()) if place[0] in tasks} if self._seen else {}

    def forget(self, task: str) -> None:
        """The task is gone."""
        for place in [place for place in list(self._seen) if place[0] == task]:
            self._seen.pop(place, None)


def runner(runtimes: RuntimeTable) -> Run:
    """The way to run a command in a task of these runtimes."""

    def run(task: str, args: Sequence[str], timeout: float) -> str:
        code, said = runtimes.shim(task).ask(task, args, timeout)
        return f"exit code {code}{f': {said}' if said else ''}" if code != 0 else ""

    return run
