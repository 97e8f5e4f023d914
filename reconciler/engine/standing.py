"""How the engine stands with its configuration: which files it has, what waits for a restart, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.clock import timestamp
from core.values import dataclass


@dataclass(slots=True)
class Standing:
    """Written by who reads the configuration, read by who writes the node's status. `since`: seconds since 1970."""

    files: tuple[str, ...] = ()
    since: float = 0.0
    waiting: tuple[str, ...] = ()
    """The keys that a restart would bring into force."""
    steps: tuple[str, ...] = ()
    """What became of each key of files of version 1."""
    problem: str = ""
    """Why the newest files are not in force; empty: they are."""

    def to_json(self) -> Mapping[str, Any]:
        """For the node's status."""
        since = {"since": timestamp(self.since)} if self.since else {}
        steps = {"migrated": list(self.steps)} if self.steps else {}
        return {"files": list(self.files), **since, "afterRestart": list(self.waiting), **steps}
