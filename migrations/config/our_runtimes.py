"""containerd's runtimes as ours: the OCI runtimes under its own shim, and its other shims.

Rules of this file: a runtime keeps its name where it has an entry of its own with us. One that every node has, and a
shim that is only found by its type, is called by its own name, once.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from migrations.config.plugins import RUNTIME
from migrations.config.runtimes import RUNC
from migrations.config.tree import Path, Table, leaves
from migrations.config.work import Outcome

CONTAINERD: Final = ("plugins", RUNTIME, "containerd")
RUNTIMES: Final = (*CONTAINERD, "runtimes")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TYPE: Final = re.compile(r"io\.containerd\.([a-z0-9][-a-z0-9]{0,50})\.(v[0-9]{1,3})")
_BUILT_IN: Final = ("runc", "crun")


class Said(NamedTuple):
    """What a rule says: the new path (None: nowhere), the new value, the outcome and why."""

    to: Path | None
    value: Any
    outcome: Outcome
    why: str


def left(outcome: Outcome, why: str) -> Said:
    """It has no line here."""
    return Said(None, None, outcome, why)


def gone(why: str) -> Said:
    """It is dropped."""
    return left(Outcome.DROPPED, why)


class Source:
    """The document that is read, with what several rules ask."""

    def __init__(self, root: Table) -> None:
        self.root = root
        self.values = {path: node.value for path, node in leaves(root)}
        self._names = list(dict.fromkeys(path[len(RUNTIMES)] for path in self.values if _below(path)))

    def of(self, name: str, *key: str) -> str:
        """A text of a runtime; "" where there is none."""
        return str(self.values.get((*RUNTIMES, name, *key)) or "")

    def program(self, name: str) -> str:
        """The program of a runtime, by name or path."""
        return self.of(name, "options", "BinaryName") or "runc"

    def kind(self, name: str) -> str:
        """The type of a runtime."""
        return self.of(name, "runtime_type") or RUNC

    def is_shim(self, name: str) -> bool:
        """Whether it is another shim than that of runc."""
        return self.kind(name) != RUNC

    def shim_path(self, name: str) -> str:
        """The shim's program, where it is said."""
        paths = (self.of(name, "runtime_path"), self.kind(name))
        return next((path for path in paths if path.startswith("/")), "")

    def shim(self, name: str) -> str:
        """What the shim is called by itself, `kata-v2`; "" where its type is no type."""
        found = _TYPE.fullmatch(self.kind(name))
        return f"{found[1]}-{found[2]}" if found is not None else ""

    def entry(self, name: str) -> str:
        """What it is called with us, where it has an entry of its own; "" where it has none."""
        if not self.is_shim(name):
            program = self.program(name)
            own = program.startswith("/") or (program == name and name not in _BUILT_IN)
            return name if own and _NAME.fullmatch(name) else ""
        if self.shim_path(name):
            return name if _NAME.fullmatch(name) else ""
        same = [one for one in self._names if self.is_shim(one) and not self.shim_path(one)]
        first = next((one for one in same if self.shim(one) == self.shim(name)), "")
        taken = self.shim(name) in self._names and self.shim(name) != name
        return self.shim(name) if first == name and not taken else ""


def _below(path: Path) -> bool:
    return path[: len(RUNTIMES)] == RUNTIMES and len(path) > len(RUNTIMES)


def default_runtime(source: Source, path: Path, value: Any) -> Said:
    """The runtime of containers that name none."""
    to = ("defaultRuntime",)
    if source.entry(value) == value or (value in _BUILT_IN and not source.is_shim(value)):
        return Said(to, value, Outcome.MOVED, "")
    called = source.entry(value) or (source.shim(value) if source.is_shim(value) else source.program(value))
    if called and not called.startswith("/"):
        return Said(to, called, Outcome.TRANSLATED, f"{value} is {called} by another name")
    return gone(f"{value} has no entry here: runc is the default; see its own lines")


def runtime_type(source: Source, path: Path, value: Any) -> Said:
    """By which driver it is run."""
    name = path[len(RUNTIMES)]
    entry = source.entry(name)
    if source.is_shim(name):
        return _shim(source, name, entry)
    if entry:
        return Said(("runtimes", name, "sandboxer"), "oci", Outcome.TRANSLATED, "runc's command line, without a shim")
    program = source.program(name)
    if _NAME.fullmatch(name) and name == program:
        return left(Outcome.DEFAULT, f"{name} is there without being configured")
    if program.startswith("/"):
        return gone(f"{name!r} is no name here: add {program} under runtimes with a name of a-z, 0-9 and -")
    return gone(f"it is {program} under another name: write runtime: {program} in manifests")


def _shim(source: Source, name: str, entry: str) -> Said:
    shim = source.shim(name)
    if entry:
        why = (
            "the same shim" if entry == name else f"the same shim, by its own name: write runtime: {entry} in manifests"
        )
        return Said(("runtimes", entry, "sandboxer"), "shim", Outcome.TRANSLATED, why)
    if shim and not source.shim_path(name):
        return gone(f"another runtime is {shim} already: write runtime: {shim} in manifests, or add it with its path")
    return gone("add it under runtimes with a name of a-z, 0-9 and -: {sandboxer: shim, path: …}")


def runtime_path(source: Source, path: Path, value: Any) -> Said:
    """The program of a shim."""
    name = path[len(RUNTIMES)]
    entry = source.entry(name)
    if source.is_shim(name) and entry and value.startswith("/"):
        return Said(("runtimes", entry, "path"), value, Outcome.MOVED, "")
    return gone("runc's own shim is not started here: name the runtime's program in runtimes.NAME.path")


def binary(source: Source, path: Path, value: Any) -> Said:
    """The OCI runtime."""
    name = path[len(RUNTIMES)]
    entry = source.entry(name)
    if source.is_shim(name):
        if entry:
            return Said(("runtimes", entry, "options", "binary"), value, Outcome.MOVED, "")
        return gone("see its runtime_type")
    if entry and value.startswith("/"):
        return Said(("runtimes", name, "path"), value, Outcome.MOVED, "")
    if name == value:
        return left(Outcome.DEFAULT, "a program is found by the runtime's name")
    return gone(f"write the program's absolute path at runtimes.{name}.path, or runtime: {value} in manifests")


def option(source: Source, path: Path, value: Any) -> Said:
    """What a driver is told beside."""
    name, key = path[len(RUNTIMES)], path[-1]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    why = _OPTIONS.get(key, "the driver has no such option")
    entry = source.entry(name)
    if not entry or isinstance(value, list | dict):
        return gone(why)
    if source.is_shim(name) and key == "ConfigPath":
        return Said(("runtimes", entry, "options", "config"), text, Outcome.MOVED, "")
    if source.is_shim(name) and key == "TypeUrl":
        return left(Outcome.DEFAULT, "follows from the option")
    return Said(("runtimes", entry, "options", key), text, Outcome.INERT, why)


_OPTIONS: Final = {
    "SystemdCgroup": "control groups are made by the agent itself, below a group of its own; nothing to do",
    "Root": "each runtime's state lies below our own state folder",
    "NoPivotRoot": "roots are always pivoted",
    "ShimCgroup": "monitors have a control group of their own",
    "ConfigBody": "write it into a file, and name that (options: {config: PATH})",
}


def sandboxer(source: Source, path: Path, value: Any) -> Said:
    """Who makes its sandboxes."""
    name = path[len(RUNTIMES)]
    if value == "podsandbox":
        return left(Outcome.DEFAULT, "a sandbox here is a few namespaces, without a container that waits")
    if value == "shim" and source.is_shim(name) and (entry := source.entry(name)):
        to = ("runtimes", entry, "options", "sandbox")
        return Said(to, "service", Outcome.TRANSLATED, "the shim makes the sandbox, by its sandbox service")
    return gone("only shims other than runc's make sandboxes of their own here (options: {sandbox: service})")
