"""systemd as the agent's service manager: a unit written, started, looked at, and taken away again.

Rules of this file: the unit's file appears whole, by rename. systemctl is asked for what it prints for programs
(`show`), never for what it prints for people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from core import fsio, process
from core.errors import from_os_error
from core.process import Launcher
from core.values import dataclass

BOOTED: Final = Path("/run/systemd/system")
UNITS: Final = Path("/etc/systemd/system")
_WORDS: Final = ("InvocationID", "ActiveState", "SubState", "StatusText", "Result")
_NUMBERS: Final = ("MainPID", "NRestarts")
_ERROR: Final = "error: "
_SLOW: Final = 120.0
"""Seconds: stopping the agent waits until what is in hand is done."""


@dataclass(frozen=True, slots=True)
class State:
    """How a unit is: systemd's own words, the agent's last line about itself, its pid (0: none).

    `run` is another one after each start; empty before the first.
    """

    run: str
    active: str
    sub: str
    said: str
    result: str
    pid: int
    restarts: int

    @property
    def ready(self) -> bool:
        """Whether the agent has said that it is ready, and runs."""
        return self.active == "active" and self.sub == "running"

    @property
    def failed(self) -> bool:
        """Whether it ended by itself (systemd starts it again in a while)."""
        return self.active == "failed" or self.sub == "auto-restart" or self.restarts > 0


def is_manager() -> bool:
    """Whether systemd is this node's service manager (sd_booted(3))."""
    return BOOTED.is_dir()


def manager_name() -> str:
    """The name of the program that is pid 1."""
    return Path("/proc/1/comm").read_text().strip()


class Service:
    """One unit of this node's systemd. Raises `Failed` with systemctl's complaint, `MissingTool`, `TimedOut`."""

    def __init__(self, name: str, launcher: Launcher) -> None:
        self.name = name
        self.file = UNITS / name
        self._launcher = launcher

    def write(self, text: str) -> bool:
        """Put the unit's file there, unless it says so already; returns whether it was written."""
        data = text.encode()
        if self.file.exists() and self.file.read_bytes() == data:
            return False
        try:
            fsio.write_atomic(self.file, data, mode=0o644)
        except OSError as error:
            raise from_os_error(error, f"writing {self.file}") from error
        self._systemctl("daemon-reload")
        return True

    def start(self) -> None:
        """Have it started at each boot, and (again) now, without waiting for it."""
        self._systemctl("daemon-reload")
        self._systemctl("enable", self.name)
        self._systemctl("restart", "--no-block", self.name)

    def remove(self) -> bool:
        """Stop it, and take its file away; returns whether there was one."""
        if not self.file.exists():
            return False
        self._systemctl("disable", "--now", self.name)
        self.file.unlink(missing_ok=True)
        fsio.fsync_dir(self.file.parent)
        self._systemctl("daemon-reload")
        return True

    def state(self) -> State:
        """How it is now; a unit that is not there is `inactive`, `dead`."""
        shown = self._systemctl("show", "--property", ",".join((*_WORDS, *_NUMBERS)), self.name)
        found = dict(line.partition("=")[::2] for line in shown.splitlines())
        pid, restarts = (int(found.get(name) or 0) for name in _NUMBERS)
        run, active, sub, said, result = (found.get(name, "") for name in _WORDS)
        return State(run, active, sub, said, result, pid, restarts)

    def last_error(self) -> str:
        """The last error that the agent itself wrote to the journal; empty when there is none to be had."""
        asked = ["journalctl", "--no-pager", "-o", "cat", "-n", "20", f"_SYSTEMD_UNIT={self.name}"]
        result = self._launcher.run([process.find(asked[0], "systemd"), *asked[1:]])
        told = [line for line in result.text().splitlines() if line.startswith(_ERROR)]
        return told[-1].removeprefix(_ERROR) if told else ""

    def _systemctl(self, *words: str) -> str:
        command = [process.find("systemctl", "systemd"), *words]
        return self._launcher.check(command, timeout=_SLOW).text()
