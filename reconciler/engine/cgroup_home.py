"""The instance's control groups for what the engine starts: `helpers/<pid>-<start>` of one engine's life, `monitors`.

Rules of this file: only the engine that holds the lock comes here. What is in another life's helpers group was started
by an engine that is dead: it is ended, and the group removed, before anything else is done. A child of that engine that
has not entered its group yet finds it gone and gives up (exit code 125, see `core.process`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from core import cgroups, proc
from core.clock import Clock
from core.process import Launcher

_UNTRACKED: Final = "what a killed engine started cannot be ended by the next one: no control group can be made here"


class CgroupHome:
    """The groups of `instance` below `tracking` (`core.cgroups.hierarchies().tracking`; None: there is none)."""

    def __init__(self, tracking: Path | None, instance: str, clock: Clock) -> None:
        self._clock = clock
        self._base = None if tracking is None else tracking / f"reconciler-{instance}"
        self._own: Path | None = None
        self.note = ""
        """Why helpers are not tracked (one sentence for people); empty when they are."""

    @property
    def monitors(self) -> Path | None:
        """The folder of the group for monitors, which outlive the engine; None when there are no groups."""
        return None if self._base is None or self._own is None else self._base / "monitors"

    def enter(self) -> Launcher:
        """End what dead engines left, make this life's group; returns the launcher whose children enter it.

        Without permission the launcher is one that tracks nothing, and `note` says so. Raises `TimedOut` when some left
        process does not die within 10 s.
        """
        if self._base is None:
            self.note = _UNTRACKED
            return Launcher()
        own = self._base / "helpers" / f"{os.getpid()}-{proc.start_time(os.getpid())}"
        try:
            for folder in (own.parent, self._base / "monitors"):
                folder.mkdir(parents=True, exist_ok=True)
            self._end_others(own)
            own.mkdir(exist_ok=True)
        except OSError as error:
            self.note = f"{_UNTRACKED} ({error.strerror}: {error.filename})"
            return Launcher()
        self._own = own
        return Launcher(own)

    def leave(self) -> None:
        """End what is left of this life's helpers and remove its group, and the instance's groups that are empty.

        Before the lock is released. Raises `TimedOut` as `enter` does.
        """
        if self._base is None or self._own is None:
            return
        cgroups.end(self._own, self._clock)
        self._own = None
        # The runtime and the monitors' move made the instance's group in every hierarchy, not only in ours.
        for base in dict.fromkeys((self._base, *(top / self._base.name for top in cgroups.hierarchies().all()))):
            for folder in (base / "helpers", base / "monitors", base):
                with contextlib.suppress(OSError):  # not there, or monitors or workloads are in it: they stay
                    folder.rmdir()

    def _end_others(self, own: Path) -> None:
        for folder in sorted(own.parent.iterdir()):
            if folder.is_dir() and folder != own:
                cgroups.end(folder, self._clock)
