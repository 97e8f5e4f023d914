"""`reconciler agent install`: the unit written, the agent started by it, and waited for."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

from core.errors import Busy, Denied, Failed, NotFound, Unsupported
from core.process import Launcher
from reconciler.cli.context import Node
from reconciler.cli.terminal import say, tell
from reconciler.decide.unit import Unit
from reconciler.engine.lock import Holder, Role
from reconciler.engine.systemd import Service, State, is_manager, manager_name
from reconciler.places import Paths

IN_PROGRESS: Final = 3
PAUSE: Final = 0.1


class Install:
    """One install: of the program that runs now, for the folders that this command line names."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.unit = unit_of(node)
        self.service = Service(self.unit.name, Launcher())

    def show(self) -> int:
        """The unit and nothing else."""
        sys.stdout.write(self.unit.text())
        return 0

    def plan(self) -> int:
        """What would be done."""
        self._refuse()
        text = self.unit.text().encode()
        there = self.service.file.read_bytes() if self.service.file.exists() else None
        word = "would write" if there is None else "would change" if there != text else "is right already:"
        say(f"{word} {self.service.file}")
        say(f"would start {self.unit.name}, now and after each boot")
        return 0

    def run(self, timeout: float) -> int:
        """All steps, each said; the exit code."""
        self._refuse()
        written = self.service.write(self.unit.text())
        say(f"{self.service.file}: {'written' if written else 'is right already'}")
        before = self.service.state().run
        self.service.start()
        state = self._wait(before, self.node.clock.monotonic() + timeout)
        if state.run == before or not state.ready:
            tell(f"{self.unit.name} is not ready after {timeout:g} s: {state.said or state.sub}")
            return IN_PROGRESS
        say(f"{self.unit.name}: the agent runs as pid {state.pid}, and will after each boot")
        return 0

    def _wait(self, before: str, until: float) -> State:
        """Wait until a run other than `before` is ready; the state then, or when the time is over."""
        said = ""
        while True:
            state = self.service.state()
            new = state.run != before
            if (new and state.ready) or self.node.clock.monotonic() >= until:
                return state
            if new and state.failed:
                word = self.service.last_error() or state.result
                raise Failed(
                    f"the agent does not start: {word}",
                    advice=f"systemd tries it again each 5 s. All it said: journalctl -u {self.unit.name}",
                )
            if new and state.said and state.said != said:
                tell(said := state.said)
            self.node.clock.sleep(PAUSE)

    def _refuse(self) -> None:
        """Raise what makes it pointless to begin."""
        if not is_manager():
            raise Unsupported(
                f"this node's service manager is {manager_name()}, not systemd: nothing was written",
                advice=f"Have it run, and restart: {command_of(self.unit)}  (see docs/install.md)",
            )
        if os.geteuid() != 0:
            raise Denied("installing a service needs root: nothing was written", advice="Run it as root.")
        if (other := other_agent(self.node.paths, self.service.state().pid)) is not None:
            raise Busy(
                f"{other} runs already, and not by {self.unit.name}: nothing was written",
                advice=f"Stop it (kill {other.process.pid}), which stops no container, and install then.",
            )


def unit_of(node: Node) -> Unit:
    """The unit for this program and this command line. Raises `NotFound` when the program is not installed."""
    program = Path(sys.executable).with_name("reconciler")
    if not program.exists():
        raise NotFound(f"{program} is not there", advice="Install the package first, with pipx or pip.")
    paths = node.paths
    given = (
        ("--root", node.root and paths.root),
        ("--state", node.state and paths.state),
        ("--config", node.config_file and os.path.abspath(node.config_file)),
    )
    return Unit(program, [word for option, path in given if path for word in (option, str(path))], paths.root)


def command_of(unit: Unit) -> str:
    """The agent's command line for a shell."""
    return shlex.join([str(unit.program), *unit.options, "agent"])


def other_agent(paths: Paths, ours: int) -> Holder | None:
    """The agent that is this node's engine, if it is not process `ours`."""
    from core.proc import boot_id

    try:
        holder = Holder.parse((paths.state / "engine.lock").read_text("utf-8", "replace"))
    except (FileNotFoundError, PermissionError):
        return None
    alive = holder is not None and holder.role is Role.AGENT and holder.process.alive(boot_id())
    return holder if alive and holder is not None and holder.process.pid != ours else None
